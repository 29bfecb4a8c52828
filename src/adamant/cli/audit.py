"""adamant audit: how robust is this model, against this threat, on these data?"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from rich.table import Table
from torch import nn

from adamant import runs
from adamant.batch import PerRow
from adamant.calling import Settings
from adamant.cli import words
from adamant.cli.common import Source, at_least_one, percent, seen
from adamant.data import Stream
from adamant.errors import InputError
from adamant.evaluation import Order, Shard, audit, default_suite, identify
from adamant.evaluation.doctor import Finding, Verdict, aftermath, examine
from adamant.files import make_folder
from adamant.models import as_logits
from adamant.values import brief

FACE = "am.audit"  # what a configuration says that Python wrote
EXAMINED = 128  # rows that the doctor sees
# What does not decide the rows is no part of the configuration of a run.
_NOT_CONFIG = ("out", "resume", "json", "quiet", "config", "batch_size", "chunk", "name", "doctor")


@dataclass(frozen=True, kw_only=True)
class Audit(Source):
    """Attack every row with a suite of attacks and write a report on what still stands."""

    threat: str = ""
    """What the adversary may do: linf:8/255, l2:0.5, l1:12, l0:10, spatial, 'patch:(5, 5)', or as in Python."""
    suite: str = ""
    """quick, standard, strict, spatial, patch, autoattack, or an attack such as 'Restarts(PGD(steps=40), 5)'; when left
    out standard, or scores or labels where no more is seen of the model."""
    access: str = ""
    """What the adversary sees: WhiteBox(), NES(n=100), EOT(20), ScoresOnly(); by default all that the model shows."""
    max_looks: int | None = None
    """At most so many forwards per row."""
    votes: int = 1
    """For a randomised model: a success must fool more than half of so many answers."""
    curve: bool = True
    """Look for the smallest change of every row, which gives the accuracy at every budget."""
    doctor: bool = True
    """Examine the model on a few rows first, and the audit after: can its figure be trusted?"""
    channels_last: bool = False
    """Hand images to the model in channels-last layout."""
    autocast: bool = False
    """Search in bfloat16; every success is still judged in float32."""
    batch_size: int | None = None
    """Chosen by itself; does not change the result."""
    chunk: int = 512
    """So many rows are finished and saved together; does not change the result."""
    name: str | None = None
    """What the report calls the model."""
    out: str = "runs/audit"
    """The folder of the run."""
    resume: bool = False
    """Go on where an audit in the same folder was stopped."""
    config: str | None = None
    """Run again what this config.toml, or the one in this folder, says."""

    def run(self) -> int:
        """Audit, print a table, and leave the run folder."""
        if self.config:
            return _from_config(self).run()
        at_least_one(batch_size=self.batch_size, max_looks=self.max_looks, chunk=self.chunk, votes=self.votes)
        threat, asked = words.threat(self.threat or _missing()), words.suite(self.suite) if self.suite else None
        if isinstance(getattr(threat, "eps", None), PerRow):
            raise InputError(
                "On the command line a threat has one budget for all rows; use am.audit in Python for one per row."
            )
        folder = make_folder(Path(self.out))
        self.check_device()
        data = self.open_data()
        raw = self.load_model(data)
        model, notes = as_logits(raw, data.x[:16].to(runs.device_of(raw)))
        access = seen(self.access, model)
        suite = asked or default_suite(access)
        settings = Settings(
            batch_size=self.batch_size, max_looks=self.max_looks, votes=self.votes, device=self.device,
            channels_last=self.channels_last, autocast=self.autocast,
        )  # fmt: skip
        order = Order(
            threat=threat, suite=suite, access=access, seed=self.seed, curve=self.curve, chunk=self.chunk,
            settings=settings,
        )  # fmt: skip
        shard, identity = Shard.here(), identify(order, model, data)
        if self.resume and (result := runs.finished(folder, identity)):
            if shard.first:
                self.console.print(f"{folder} holds this audit, and it is finished: nothing is computed again.")
                self._show(result, folder)
            return 0
        before = self._examined(raw, data, order) if self.doctor and shard.first else ()
        quiet = self if shard.first else replace(self, quiet=True)
        with quiet.progress("audit", "rows") as tell:
            found = audit(model, data, replace(order, watch=tell), folder=folder, resume=self.resume, identity=identity)
        if not shard.first:  # the first process writes the report
            return 0
        story = runs.Story(
            name=self.name or str(self.model),
            model=runs.facts_of_model(str(self.model), raw, notes),
            config={**self.settings_as_config(), "suite": self.suite or suite.name, "access": brief(access)},
            command=runs.command_line(),
            device=runs.device_of(raw),
            identity=identity,
        )
        findings = (*before, *aftermath(model, found)) if self.doctor else ()
        self._show(runs.write_audit(folder, found, data, story, findings), folder)
        return 0

    def _examined(self, raw: nn.Module, data: Stream, order: Order) -> tuple[Finding, ...]:
        settings = replace(order.settings, max_looks=None)
        return examine(
            raw, data, order.threat, seed=self.seed, rows=EXAMINED, access=order.access, settings=settings
        ).findings

    def _show(self, result: dict[str, Any], folder: Path) -> None:
        self.say(result)
        self.console.print(table([result]))
        for warning in result["warnings"]:
            self.console.print(f"Warning: {warning}", style="bold red", soft_wrap=True)
        if result["diagnostics"]:
            self.console.print(tally(result["diagnostics"]), soft_wrap=True)
        self.console.print(f"Seed {self.seed}. Report: {folder / 'report.html'}", soft_wrap=True)

    def settings_as_config(self) -> dict[str, Any]:
        """Everything that decides the rows, for config.toml."""
        held = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NOT_CONFIG}
        return {"command": "audit", **{k: list(v) if isinstance(v, tuple) else v for k, v in held.items()}}


def _missing() -> str:
    raise InputError("Which threat? Give --threat, for example --threat linf:8/255.")


def _from_config(asked: Audit) -> Audit:
    held = runs.read_config(Path(str(asked.config)))
    command = held.pop("command", None)
    if command == FACE:
        _complete(held, str(asked.config))
    elif command != "audit":
        raise InputError(f"{asked.config} says command = {command!r}: give the config.toml of an adamant audit.")
    kinds = get_type_hints(Audit)
    if odd := [k for k in held if k not in kinds or k in _NOT_CONFIG]:
        raise InputError(f"{asked.config} says {', '.join(odd)}, which no audit reads there: delete it.")
    held = {k: tuple(v) if isinstance(v, list) else v for k, v in held.items()}
    for name, value in held.items():
        if not words.fits(value, kinds[name]):
            raise InputError(f"{asked.config} says {name} = {value!r}, which is not what an audit reads there.")
    plain = Audit()
    both = [f.name for f in fields(Audit) if f.name not in _NOT_CONFIG and _given(asked, plain, f.name)]
    if both:
        raise InputError(
            f"--config says everything that decides the rows, and you also give {', '.join(both)}: leave that out, or "
            f"change it in a copy of {asked.config}."
        )
    return replace(asked, **held, config=None)


def _complete(held: dict[str, Any], where: str) -> None:
    """What am.audit wrote, which was handed a model and data: a person adds how a command line finds them."""
    facts: Any = held.pop("python", {})
    said = ", ".join(f"{k} {v}" for k, v in facts.items()) if isinstance(facts, dict) else ""
    if missing := [k for k in ("model", "data") if k not in held]:
        raise InputError(
            f"{where} was written by am.audit in Python, which was handed model and data as objects ({said}): add the "
            f"settings {' and '.join(missing)} to it, each as on the command line, above [python]."
        )


def _given(asked: Audit, plain: Audit, name: str) -> bool:
    return getattr(asked, name) != getattr(plain, name)


def tally(diagnostics: list[dict[str, Any]]) -> str:
    """How many diagnostics ended how."""
    counts = {v: sum(d["verdict"] == v.name for d in diagnostics) for v in Verdict}
    parts = (f"{counts[v]} {word}" for v, word in _ENDED.items() if counts[v])
    return f"Diagnostics: {', '.join(parts)}."


_ENDED = {Verdict.PASS: "passed", Verdict.WARN: "warn", Verdict.FAIL: "FAILED", Verdict.SKIPPED: "not applicable"}


def table(results: list[dict[str, Any]]) -> Table:
    """One line per attack; a column per model."""
    view = Table(title=f"Robust accuracy under {results[0]['threat']['repr']}", title_justify="left", show_edge=False)
    view.add_column("after")
    for result in results:
        view.add_column(result["name"], justify="right")
    view.add_row("no attack", *(percent(r["clean"]) for r in results))
    for stages in zip(*(r["stages"] for r in results), strict=True):
        view.add_row(stages[0]["attack"], *(f"{s['robust_accuracy']:.1%}" for s in stages))
    view.add_row("all of them", *(percent(r["robust"]) for r in results), style="bold")
    costs = ("{forwards:,} + {backwards:,} in {seconds:.1f} s".format(**r["cost"]) for r in results)
    view.add_row("forwards + backwards", *costs, style="dim")
    return view
