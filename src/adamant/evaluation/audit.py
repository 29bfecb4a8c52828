"""The audit: a suite of attacks against one threat model, on what still stands; it can be killed and resumed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from adamant._types import Inputs
from adamant.access import Access, Sight, WhiteBox
from adamant.attacks import PGD, RandomSearch
from adamant.batch import PerRow, take
from adamant.calling import Caller, Settings, untouched, unwrapped
from adamant.engine import Attack, Composite, Outcome, Status, run
from adamant.errors import InputError
from adamant.evaluation.counting import share
from adamant.evaluation.parts import COLUMNS, Part, Parts, Stage
from adamant.evaluation.suites import STANDARD, Suite
from adamant.goals import Untargeted
from adamant.losses import Margin
from adamant.random import Rng
from adamant.threats import L0, Projectable
from adamant.values import brief

# The curve between the audited budgets is drawn by one attack; at the audited budget the whole suite speaks.
CURVE: Attack = PGD(steps=20, loss=Margin())
CURVE_WITHOUT_GRADIENTS: Attack = RandomSearch(steps=200)
GRID = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # times the audited budget


class Data(Protocol):
    """A labelled set that knows where each row came from."""

    @property
    def x(self) -> Tensor: ...
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
        parts = (self.threat, self.suite.attacks, self.access, quiet)
        numbers = f"seed {self.seed} | curve {self.curve} | chunks of {self.chunk} rows"
        return " | ".join((*map(repr, parts), numbers))


@final
@dataclass(frozen=True)
class Audit:
    """What an audit found: figures by `summary`, a line per row in `rows`, and the inputs of every broken row."""

    order: Order
    classes: tuple[str, ...]
    rows: dict[str, list[Any]]
    broken: dict[str, Tensor]  # row, original, adversarial
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
            "seed": self.order.seed,
            "clean": share(right, n),
            "robust": share(self._standing(), n),
            "stages": [s.summary(n) for s in self.stages if s.eps is None],
            "curve": self._curve(),
            "per_class": self._per_class(),
            "statuses": {s.name.lower(): self._count(s.name.lower()) for s in Status},
            "cost": {**costs, "seconds": round(self.seconds, 3)},
            "warnings": self._warnings(),
        }

    def _curve(self) -> list[dict[str, Any]]:
        n, eps = len(self.rows["row"]), _eps(self.order.threat)
        right = n - self._count("wrong_already")
        points = [{"eps": 0.0, **share(right, n), "attack": "clean"}]
        if eps is None:
            return points
        reached = [e for e in self.rows["curve_eps"] if e is not None]
        grid = _grid(self.order) if self.order.curve else [eps]
        for at in grid:
            by = self.order.suite.name if at == eps else brief(_curve_attack(self.order))
            points.append({"eps": at, **share(right - sum(e <= at for e in reached), n), "attack": by})
        return points

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
        if blind := max((s.blind for s in self.stages if s.eps is None), default=0):
            found.append(
                f"On {blind} rows the model returned NaN for everything that an attack tried. NaN never counts as a "
                "success, so these rows stand, but nothing is known of them."
            )
        within = [s for s in self.stages if s.eps is None]
        scored = [a.needs < Sight.GRADIENT for a in self.order.suite.attacks]
        lucky = sum(s.broke for s, without in zip(within, scored, strict=True) if without)
        if not all(scored) and lucky > max(3, 0.01 * len(self.rows["row"])):
            found.append(
                f"A search without gradients broke {lucky} rows that the gradient attacks had left standing: the "
                "gradients may be masked, and the robust accuracy overstated."
            )
        return found


def audit(model: nn.Module, data: Data, order: Order, *, folder: Path | None = None, resume: bool = False) -> Audit:
    """Run the suite on every row and report; with a folder, finished chunks are on the disk and `resume` skips them.

    Raises InputError or ModelError for what cannot be audited, RunError when the folder holds another audit.
    """
    began, n = time.monotonic(), len(data.y)
    if not n:
        raise InputError("The data hold no rows: nothing can be audited.")
    if isinstance(getattr(order.threat, "eps", None), PerRow):
        order = replace(order, curve=False)
    order.threat.check(data.x)
    parts = Parts(folder, _identity(order, model, data) if folder else "", resume=resume)
    for number, at in enumerate(range(0, n, order.chunk)):
        if number not in parts:
            rows = torch.arange(at, min(at + order.chunk, n))
            parts.add(number, _chunk(model, data, order, rows, lambda done, at=at: _tell(order, at + done, n)))
        _tell(order, min(at + order.chunk, n), n)
    rows, broken, stages = parts.merged()
    return Audit(order, data.classes, rows, broken, stages, parts.seconds_before + time.monotonic() - began)


def _identity(order: Order, model: nn.Module, data: Data) -> str:
    """What must be the same for an audit to be continued: its order, the data, and the weights of the model."""
    state = unwrapped(model).state_dict()
    weights = _digest([v for v in state.values() if isinstance(v, Tensor)])
    inputs = f"{len(data.y)} rows, sha256 {_digest([data.x, data.y, data.rows])}"
    return f"{order.identity} | the data of {inputs} | {type(model).__name__}, weights of sha256 {weights}"


def _digest(tensors: list[Tensor]) -> str:
    digest = hashlib.sha256()
    for held in tensors:
        digest.update(held.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _tell(order: Order, done: int, rows: int) -> None:
    if order.watch:
        order.watch(done, rows, order.suite.name)


def _chunk(model: nn.Module, data: Data, order: Order, rows: Tensor, tell: Callable[[int], None]) -> Part:
    """All attacks on some rows, each on what the ones before it left standing."""
    x, y, ids = data.x[rows], data.y[rows].long(), data.rows[rows]
    threat = take(order.threat, rows)
    logits = _logits(model, x, order.settings)
    Untargeted(y).check(logits.shape[1])
    n, books = len(x), _Books(x, y, ids, logits)
    plan: list[tuple[Attack | Composite, float | None]] = [(a, None) for a in order.suite.attacks]
    eps = _eps(order.threat)
    if order.curve and eps is not None:
        # Sets that contain each other: only what broke at eps can break below it, only what stands can break above.
        plan += [(_curve_attack(order), e) for e in _grid(order) if e != eps]
    for i, (attack, at) in enumerate(plan):
        todo = books.todo(at, eps)
        stage_began = time.monotonic()
        if len(todo):
            rng = Rng.of(order.seed, ids[todo]).fold("stage").fold(i)
            there = take(threat, todo) if at is None else threat.at(at)
            out = run(
                attack,
                model,
                x[todo],
                Untargeted(y[todo]),
                there,
                access=order.access,
                rng=rng,
                settings=order.settings,
            )
            books.enter(todo, out, brief(attack), at, eps)
            books.stages.append(Stage.of(attack, at, out, time.monotonic() - stage_began))
        else:
            books.stages.append(Stage.idle(attack, at))
        tell(round(n * (i + 1) / (len(plan) + 1)))
    return books.part(_logits(model, books.adversarial, order.settings))


def _logits(model: nn.Module, x: Inputs, settings: Settings) -> Tensor:
    caller = Caller(unwrapped(model), replace(settings, autocast=False))
    device = next((p.device for p in model.parameters()), x.device)
    with untouched(caller.model), torch.no_grad():
        return torch.cat([caller(part.to(device)).cpu() for part in x.split(settings.batch_size or 128)])


class _Books:
    """What is known of the rows of a chunk so far."""

    def __init__(self, x: Inputs, y: Tensor, ids: Tensor, logits: Tensor) -> None:
        n = len(x)
        self.x, self.y, self.ids, self.clean = x, y, ids, logits
        self.adversarial = x.clone()
        self.wrong = Untargeted(y).reached(logits)
        self.broken, self.invalid, self.spent = (torch.zeros(n, dtype=torch.bool) for _ in range(3))
        self.attack: list[str | None] = [None] * n
        self.curve = torch.full((n,), torch.nan, dtype=torch.float64)
        self.size, self.loss = (torch.full((n,), torch.nan, dtype=torch.float64) for _ in range(2))
        self.forwards, self.backwards, self.first = (torch.zeros(n, dtype=torch.int64) for _ in range(3))
        self.stages: list[Stage] = []

    def todo(self, at: float | None, eps: float | None) -> Tensor:
        """The rows that an attack at this budget could still change."""
        if at is None:
            return (~self.wrong & ~self.broken).nonzero().squeeze(1)
        assert eps is not None
        known = ~self.curve.isnan() & (self.curve <= at)
        candidates = self.broken if at < eps else ~self.broken
        return (~self.wrong & candidates & ~known).nonzero().squeeze(1)

    def enter(self, todo: Tensor, out: Outcome, name: str, at: float | None, eps: float | None) -> None:
        fell = todo[out.broken]
        if at is None:
            self.forwards[todo] += out.forwards
            self.backwards[todo] += out.backwards
            self.invalid[todo] |= out.status == Status.INVALID
            self.spent[todo] |= out.status == Status.OUT_OF_BUDGET
            self.broken[fell] = True
            self.adversarial[fell], self.size[fell], self.loss[fell] = (
                out.x_adv[out.broken],
                out.size[out.broken],
                out.loss[out.broken],
            )
            self.first[fell] = self.forwards[fell]
            for i in fell.tolist():
                self.attack[i] = name
            at = eps
        if at is not None:
            self.curve[fell] = torch.fmin(self.curve[fell], torch.tensor(at, dtype=torch.float64))

    def _status(self, row: int) -> str:
        verdicts = ((self.wrong, Status.WRONG_ALREADY), (self.broken, Status.BROKEN), (self.invalid, Status.INVALID))
        for mask, status in (*verdicts, (self.spent, Status.OUT_OF_BUDGET)):
            if mask[row]:
                return status.name.lower()
        return Status.ROBUST.name.lower()

    def part(self, after: Tensor) -> Part:
        clean, adv = self.clean.double().softmax(1).max(1), after.double().softmax(1).max(1)
        status = [self._status(i) for i in range(len(self.y))]
        broken = self.broken.tolist()

        def where_broken(values: Tensor) -> list[Any]:
            return [v if b else None for v, b in zip(values.tolist(), broken, strict=True)]

        columns: dict[str, list[Any]] = {
            "row": self.ids.tolist(),
            "label": self.y.tolist(),
            "clean_prediction": clean.indices.tolist(),
            "clean_confidence": clean.values.tolist(),
            "status": status,
            "attack": self.attack,
            "adversarial_prediction": where_broken(adv.indices),
            "adversarial_confidence": where_broken(adv.values),
            "size": where_broken(self.size),
            "loss": where_broken(self.loss),
            "forwards": self.forwards.tolist(),
            "backwards": self.backwards.tolist(),
            "first_success": where_broken(self.first),
            "curve_eps": [None if e != e else e for e in self.curve.tolist()],
        }
        assert tuple(columns) == COLUMNS
        kept = {
            "row": self.ids[self.broken],
            "original": self.x[self.broken],
            "adversarial": self.adversarial[self.broken],
        }
        return Part(columns, kept, tuple(self.stages))


def _eps(threat: Projectable) -> float | None:
    eps = getattr(threat, "eps", None)
    return float(eps) if isinstance(eps, (int, float)) else None


def _curve_attack(order: Order) -> Attack:
    return CURVE if order.access.gives == Sight.GRADIENT else CURVE_WITHOUT_GRADIENTS


def _grid(order: Order) -> list[float]:
    """The budgets of the curve, the audited one among them; whole numbers where the budget counts entries."""
    eps = _eps(order.threat)
    assert eps is not None
    points = [eps if f == 1 else float(f"{eps * f:.12g}") for f in GRID]
    if isinstance(order.threat, L0):
        points = [float(max(1, round(p))) for p in points]
    return sorted(set(points))
