"""The audit: a suite of attacks against one threat model, on what still stands; it can be killed and resumed."""

from __future__ import annotations

import hashlib
import math
import re
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from adamant.access import Access, Sight, WhiteBox
from adamant.adversary import Status
from adamant.attacks import Union
from adamant.batch import PerRow, take
from adamant.calling import Budgeted, Settings, unwrapped
from adamant.data import Readable
from adamant.engine import Interrupted, run
from adamant.errors import InputError, Spent
from adamant.evaluation.acceptance import ATTEMPTS, TOLERANCE, accepted, clean, judged
from adamant.evaluation.books import SMALLEST, Books
from adamant.evaluation.counting import quantile, share
from adamant.evaluation.course import Course, Suite, defined
from adamant.evaluation.kept import Kept
from adamant.evaluation.parts import EVIDENCE, Part, Parts, Stage
from adamant.evaluation.suites import STANDARD, check_shown, seekers
from adamant.goals import Untargeted
from adamant.random import Rng
from adamant.shards import Shard
from adamant.threats import L0, Projectable
from adamant.values import brief

_FEW = 16  # rows in a chunk, where queries have a budget
_TOLD = 16  # rows by whose answers a model without weights is told from another
_GLANCE = 2**22  # numbers that are looked at together where all the data pass by
GRID = tuple(i / 8 for i in range(1, 17))  # where the curve is told, times the audited budget


class Data(Protocol):
    """A labelled set that knows where each row came from; its inputs in memory or on the disk."""

    @property
    def x(self) -> Readable: ...
    @property
    def y(self) -> Tensor: ...
    @property
    def rows(self) -> Tensor: ...
    @property
    def classes(self) -> tuple[str, ...]: ...


@final
@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be audited, and how: everything that decides `rows.parquet`."""

    threat: Projectable
    suite: Suite = STANDARD
    access: Access = field(default_factory=WhiteBox)
    seed: int = 0
    curve: bool = True
    chunk: int = 512  # rows that are finished and saved together
    settings: Settings = Settings()
    watch: Callable[[int, int, str], None] | None = field(
        default=None, compare=False, repr=False
    )  # rows, of rows, words

    @property
    def identity(self) -> str:
        """What must be the same for an audit to be continued."""
        quiet = replace(self.settings, batch_size=None, watch=None)
        parts = (self.threat, self.suite.course(self.threat, self.access).attacks, self.access, quiet)
        numbers = f"seed {self.seed} | curve {self.curve} | chunks of {self.chunk} rows"
        return " | ".join((*map(repr, parts), numbers))


@final
@dataclass(frozen=True)
class Audit:
    """What an audit found: figures by `summary`, a line per row in `rows`, and the inputs of every broken row.

    With a folder these inputs are on the disk, and `broken[name]` reads them.
    """

    order: Order
    classes: tuple[str, ...]
    rows: dict[str, list[Any]]
    broken: Kept  # row, original, adversarial
    stages: tuple[Stage, ...]
    seconds: float

    @property
    def clean_accuracy(self) -> float:
        """The share of rows that the model has right."""
        return 1 - self._count("wrong_already") / len(self.rows["row"])

    @property
    def robust_accuracy(self) -> float:
        """The share of rows that no attack broke: an upper bound on the true robust accuracy."""
        return self._standing() / len(self.rows["row"])

    def _count(self, status: str) -> int:
        return self.rows["status"].count(status)

    def _standing(self) -> int:
        return len(self.rows["row"]) - self._count("wrong_already") - self._count("broken")

    def summary(self) -> dict[str, Any]:
        """All figures with intervals, ready for result.json."""
        n = len(self.rows["row"])
        right = n - self._count("wrong_already")
        costs = {k: sum(getattr(s, k) for s in self.stages) for k in ("forwards", "backwards", "checks")}
        return {
            "threat": {
                "repr": brief(self.order.threat),
                "norm": type(self.order.threat).__name__,
                "eps": _eps(self.order.threat),
                "allows": getattr(self.order.threat, "allows", None),
            },
            "suite": self.order.suite.name,
            "access": brief(self.order.access),
            "seed": self.order.seed,
            "clean": share(right, n),
            "robust": share(self._standing(), n),
            "stages": [s.summary(n) for s in self.stages],
            "curve": self._curve(),
            "distance": self._distance(),
            "per_class": self._per_class(),
            "statuses": {s.name.lower(): self._count(s.name.lower()) for s in Status},
            "cost": {**costs, "seconds": round(self.seconds, 3)},
            "warnings": self._warnings(),
        }

    def _distances(self) -> list[float]:
        """The smallest change found of every row that fell, in order."""
        return sorted(d for d in self.rows["distance"] if d is not None)

    def _curve(self) -> list[dict[str, Any]]:
        n, eps, fell = len(self.rows["row"]), _eps(self.order.threat), self._distances()
        right = n - self._count("wrong_already")
        points = [{"eps": 0.0, **share(right, n), "attack": "clean"}]
        if eps is None:
            return points
        by = self.order.suite.name
        for at in _grid(self.order.threat, eps) if self.order.curve else [eps]:
            points.append({"eps": at, **share(right - bisect_right(fell, at), n), "attack": by})
        return points

    def _distance(self) -> dict[str, Any]:
        """How small a change suffices, among the rows that were right; None where more than that share still stand."""
        right, fell = len(self.rows["row"]) - self._count("wrong_already"), self._distances()

        return {
            "median": quantile(fell, right, 0.5),
            "lower": quantile(fell, right, 0.25),
            "upper": quantile(fell, right, 0.75),
            "censored": right - len(fell),
        }

    def _per_class(self) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        for label, name in enumerate(self.classes):
            statuses = [s for s, y in zip(self.rows["status"], self.rows["label"], strict=True) if y == label]
            if not statuses:
                continue
            wrong, broken = statuses.count("wrong_already"), statuses.count("broken")
            clean, robust = (
                share(len(statuses) - wrong, len(statuses)),
                share(len(statuses) - wrong - broken, len(statuses)),
            )
            line: dict[str, Any] = {"label": label, "name": name, "rows": len(statuses)}
            for word, figures in (("clean", clean), ("robust", robust)):
                line |= {word: figures["accuracy"], f"{word}_low": figures["low"], f"{word}_high": figures["high"]}
            lines.append(line)
        return lines

    def _warnings(self) -> list[str]:
        found: list[str] = []
        if bad := self._count("invalid"):
            found.append(
                f"{bad} rows are INVALID: an attack left the threat model on them, which is a defect of the attack. "
                "Their verdict cannot be trusted."
            )
        if spent := self._count("out_of_budget"):
            found.append(f"{spent} rows ran out of looks before the attacks were through: they may not be robust.")
        if blind := max((s.blind for s in self.stages), default=0):
            found.append(
                f"On {blind} rows the model returned NaN for everything that an attack tried, or nothing was worse "
                "than the input itself. NaN never counts as a success: these rows stand, but nothing is known of them."
            )
        if left_out := [s.attack for s in self.stages if s.left_out]:
            found.append(
                f"{', '.join(left_out)} did not run: its loss compares more classes than the model has. What it might "
                "have broken stands."
            )
        lucky = sum(s.broke for s in self.stages if s.needs < Sight.GRADIENT)
        if not all(s.needs < Sight.GRADIENT for s in self.stages) and lucky > max(3, 0.01 * len(self.rows["row"])):
            found.append(
                f"A search without gradients broke {lucky} rows that the gradient attacks had left standing: the "
                "gradients may be masked, and the robust accuracy overstated."
            )
        if again := sum(s.rejected for s in self.stages):
            found.append(
                f"{again} successes did not hold when they were judged once more, in another batch, and were attacked "
                "again: the model's answers depend on the batch, or are not the same twice."
            )
        return found


def audit(
    model: nn.Module,
    data: Data,
    order: Order,
    *,
    folder: Path | None = None,
    resume: bool = False,
    identity: str | None = None,
) -> Audit:
    """Run the suite on every row and report; with a folder, finished chunks are on the disk and `resume` skips them.

    With a folder, and data on the disk, memory holds the inputs of one chunk at a time. Under torchrun each process
    does its share of the chunks, and all return the whole audit; the rows are the same. `identity` is what `identify`
    said, where it was asked already. Raises InputError or ModelError for what cannot be audited, RunError when the
    folder holds another audit.
    """
    began, n = time.monotonic(), len(data.y)
    check_shown(order.suite, order.threat, order.access, model)
    order = _paced(order, model)
    identity = identity or identify(order, model, data)
    if isinstance(getattr(order.threat, "eps", None), PerRow):
        order = replace(order, curve=False)
    shard = Shard.here()
    if shard.world > 1:
        if folder is None:
            raise InputError("Several processes share an audit by its folder: give one.")
        if shard.first and not resume:
            Parts.forget(folder)
        shard.meet()
    parts = Parts(folder, identity, resume=resume or shard.world > 1)
    for number, at in enumerate(range(0, n, order.chunk)):
        if number not in parts and shard.mine(number):
            rows = torch.arange(at, min(at + order.chunk, n))
            try:
                parts.add(number, _chunk(model, data, order, rows, partial(_tell_of, order, at, n)))
            except (Interrupted, Spent) as stop:
                raise _stopped(stop, at, n) from None
        _tell(order, min(at + order.chunk, n), n)
    if shard.world > 1:
        shard.meet()
        parts = Parts(folder, identity, resume=True)
    if folder and shard.first:
        parts.write_kept(folder / EVIDENCE)
    shard.meet()
    rows, stages = parts.merged()
    broken = Kept(folder / EVIDENCE) if folder else parts.kept()
    return Audit(order, data.classes, rows, broken, stages, parts.seconds_before + time.monotonic() - began)


def _paced(order: Order, model: nn.Module) -> Order:
    """Where queries have a budget, few rows at a time, so that much is through when it is spent."""
    limited = any(isinstance(m, Budgeted) and m.budget is not None for m in model.modules())
    return replace(order, chunk=min(order.chunk, _FEW)) if limited else order


def _stopped(stop: KeyboardInterrupt, done: int, rows: int) -> Interrupted:
    """Ctrl-C as it is; of a budget that is spent also how far the audit came."""
    why = stop.why if isinstance(stop, Interrupted) else str(stop)
    return Interrupted(None, f"{why}; {done:,} of {rows:,} rows are through" if why else "")


def identify(order: Order, model: nn.Module, data: Data) -> str:
    """What must be the same for an audit to be continued: its order, the data, and the weights of the model.

    Goes through the data once, a few at a time; raises InputError where they cannot be audited under this threat.
    """
    n, order = len(data.y), _paced(order, model)
    if not n:
        raise InputError("The data hold no rows: nothing can be audited.")
    for name, value in vars(order.threat).items():
        if isinstance(value, PerRow) and len(value.values) != n:
            what = "budgets" if name == "eps" else f"values of {name}"
            raise InputError(f"There are {len(value.values)} {what} for {n} rows.")
    digest, size = hashlib.sha256(), max(1, _GLANCE // max(1, math.prod(data.x.shape[1:])))
    for at in range(0, n, size):
        x = data.x[at : at + size]
        try:
            take(order.threat, torch.arange(at, at + len(x))).check(x)
        except InputError as error:
            raise InputError(_counted(str(error), at)) from None
        _digest(digest, x)
    _digest(digest, data.y)
    _digest(digest, data.rows)
    weights = hashlib.sha256()
    for value in unwrapped(model).state_dict().values():
        if isinstance(value, Tensor):
            _digest(weights, value)
    inputs = f"{n} rows, sha256 {digest.hexdigest()[:16]}"
    if not unwrapped(model).state_dict():  # a function: told by its answers
        with torch.no_grad():
            _digest(weights, judged(model, data.x[:_TOLD], order.settings).argmax(1))
    name = type(model).__name__
    return f"{order.identity} | the data of {inputs} | {name}, weights of sha256 {weights.hexdigest()[:16]}"


def _counted(sentence: str, at: int) -> str:
    """A sentence about rows from `at` on, as one about all rows."""
    return re.sub(r"^Row (\d+)", lambda found: f"Row {at + int(found[1])}", sentence)


def _digest(digest: Any, held: Tensor) -> None:
    digest.update(held.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def _tell(order: Order, done: int, rows: int) -> None:
    if order.watch:
        order.watch(done, rows, order.suite.name)


def _tell_of(order: Order, at: int, rows: int, done: int, _of: int) -> None:
    _tell(order, at + done, rows)


def _chunk(model: nn.Module, data: Data, order: Order, rows: Tensor, tell: Callable[[int, int], None]) -> Part:
    """The suite on some rows, each attack on what those before it left standing; then the smallest change of each."""
    x, y, ids = data.x[rows].detach(), data.y[rows].long(), data.rows[rows]
    threat = take(order.threat, rows)
    logits, wrong = clean(model, x, y, order.settings)
    plan = order.suite.course(order.threat, order.access)
    able = [defined(a, logits.shape[1]) for a in plan.attacks]
    if not any(able):
        raise InputError(f"No attack of {order.suite.name} can run on a model of {logits.shape[1]} classes.")
    stages = [
        Stage.idle(a, name, left_out=not ok) for a, name, ok in zip(plan.attacks, _names(plan), able, strict=True)
    ]
    ran = [i for i, ok in enumerate(able) if ok]
    books = Books(x, y, ids, logits, wrong, stages)
    suite = Union(*(plan.attacks[i] for i in ran))
    settings = replace(take(order.settings, rows), tolerance=max(order.settings.tolerance, TOLERANCE), watch=tell)

    def clock(part: int, seconds: float) -> None:
        books.clock(ran[part], seconds)

    timed = replace(settings, clock=clock)
    rng = Rng.of(order.seed, ids)
    todo = torch.arange(len(x))
    for attempt in range(ATTEMPTS):
        out = run(
            suite, model, x[todo], Untargeted(y[todo]), take(threat, todo),
            access=order.access, rng=take(rng, todo).fold("suite").fold(attempt), settings=books.limited(timed, todo),
        )  # fmt: skip
        holds = accepted(model, take(threat, todo), x[todo], y[todo], out, settings)
        books.enter(todo, out, ran, holds, again=attempt > 0)
        todo = todo[out.broken & ~holds & ~books.wrong[todo]]
        if not len(todo):
            break
    seek = seekers(order.threat, order.access) if order.curve and _eps(order.threat) is not None else ()
    todo, began = (~books.wrong).nonzero().squeeze(1), time.monotonic()
    if seek:  # a stage of every chunk, so that chunks add up
        books.stages.append(Stage.idle(Union(*seek), SMALLEST))
    if seek and len(todo):
        endless = threat.at(math.inf)
        out = run(
            Union(*seek), model, x[todo], Untargeted(y[todo]), endless,
            access=order.access, rng=take(rng, todo).fold("curve"),
            settings=books.limited(replace(settings, watch=None), todo),
        )  # fmt: skip
        holds = accepted(model, endless, x[todo], y[todo], out, settings)
        books.measure(todo, out, holds, take(threat, todo), time.monotonic() - began)
    return books.part(judged(model, books.adversarial, order.settings))


def _names(plan: Course) -> tuple[str, ...]:
    return plan.names or tuple(brief(a) for a in plan.attacks)


def _eps(threat: Projectable) -> float | None:
    eps = getattr(threat, "eps", None)
    return float(eps) if isinstance(eps, (int, float)) else None


def _grid(threat: Projectable, eps: float) -> list[float]:
    """The budgets of the curve, the audited one among them; whole numbers where the budget counts entries."""
    points = [eps if f == 1 else float(f"{eps * f:.12g}") for f in GRID]
    if isinstance(threat, L0):
        points = [float(max(1, round(p))) for p in points]
    return sorted(set(points))
