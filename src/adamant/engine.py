"""The one loop: look, judge, keep the best, drop what is done, step; over 400 lines, as its promises read as one.

No attack contains a success check, an early stop, a batch loop, a device move, a mode switch or a progress bar:
they are all here, so that one mend reaches every attack.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from typing import Any, ClassVar, Protocol, cast, final, runtime_checkable

import torch
from torch import Tensor, nn

from adamant._types import Inputs, Logits, Mask
from adamant.access import Access, Cost, Look, Sight, View, WhiteBox
from adamant.batch import Rows, cat, take
from adamant.errors import AccessError, InputError, ModelError
from adamant.goals import Goal
from adamant.losses import Loss
from adamant.random import Rng, sealed
from adamant.threats import Anchored, Projectable


class Status(IntEnum):
    """How a row ended."""

    WRONG_ALREADY = 0
    ROBUST = 1
    BROKEN = 2
    OUT_OF_BUDGET = 3
    INVALID = 4  # a defect of the attack: it never looked at a member of the threat model


@final
@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an attack is run; none of these changes a result, but for `max_looks`, `lanes` and `autocast`."""

    batch_size: int | None = None  # chosen by itself; halved when memory runs out
    max_looks: int | None = None  # forwards per row, a hard limit
    # The model always sees a multiple of so many rows (copies fill up, uncounted), because kernels round differently
    # for very small batches. 1 turns it off: for a single picture, or a model that counts its queries.
    lanes: int = 16
    device: str | None = None  # the model's own by default
    channels_last: bool = False
    autocast: bool = False  # search in bfloat16; every success is still judged in float32
    watch: Callable[[int, int], None] | None = field(default=None, compare=False, repr=False)  # (rows done, rows)


@dataclass(frozen=True)
class Problem(Rows):
    """Model, rows of inputs, goal, threat, access and randomness: all that an attack may know."""

    x: Inputs
    goal: Goal  # what counts as success
    aim: Goal  # what the loss climbs; the goal itself, unless a composite aims elsewhere
    threat: Projectable
    access: Access
    rng: Rng
    index: Tensor  # the place of each row in the books
    desk: Desk

    @cached_property
    def project(self) -> Callable[[Inputs], Inputs]:
        """To the nearest member of the threat model; what depends on x alone is worked out once for all steps."""
        x, threat = self.x, self.threat
        return threat.around(x) if isinstance(threat, Anchored) else lambda z: threat.project(z, x)

    def look(self, z: Inputs, loss: Loss, *, grad: bool = False) -> Look:
        """Visit the model at z: counted, judged, and kept where it is the best so far."""
        return self.desk.look(self, z, loss, grad=grad)


@runtime_checkable
class Attack(Protocol):
    """Where to look first, and where next, given what was seen; a record of settings and nothing else."""

    needs: ClassVar[Sight]

    @property
    def steps(self) -> int: ...

    @property
    def loss(self) -> Loss: ...

    def init(self, p: Problem) -> Any:
        """The first state: a `Rows` record with `z`, the first place to look."""
        ...

    def step(self, p: Problem, s: Any, seen: Look, t: int) -> Any:
        """The next state, given what was seen at `s.z`."""
        ...


@runtime_checkable
class Composite(Protocol):
    """An attack made of attacks, run one after another on the rows that still stand."""

    @property
    def needs(self) -> Sight: ...

    def unfold(self, p: Problem) -> Iterator[tuple[Attack | Composite, Problem]]:
        """The parts, each with the problem it is to solve, for all rows of p."""
        ...


@final
@dataclass(frozen=True)
class Outcome(Rows):
    """What became of each row; broken rows were judged once more, alone, in float32."""

    x_adv: Tensor  # the smallest claim: the adversarial input where broken, else the best try inside the set
    status: Tensor  # `Status`, int64
    size: Tensor  # float64, in the threat model's unit
    loss: Tensor  # the attack's own loss at x_adv; NaN where nothing was tried
    forwards: Tensor  # passes of the search, int64
    backwards: Tensor
    checks: Tensor  # forwards that only judged: the clean look and the verification
    first_success: Tensor  # the look (counted from 1) that broke the row, 0 where none did

    @property
    def broken(self) -> Mask:
        """Rows that the attack broke."""
        return self.status == Status.BROKEN

    @property
    def success_rate(self) -> float:
        """Broken rows among those that the model had right."""
        right = int((self.status != Status.WRONG_ALREADY).sum())
        return int(self.broken.sum()) / right if right else 0.0

    @property
    def robust_accuracy(self) -> float:
        """Rows that still stand, among all."""
        standing = (
            (self.status == Status.ROBUST) | (self.status == Status.OUT_OF_BUDGET) | (self.status == Status.INVALID)
        )
        return float(standing.double().mean())


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run; `outcome` holds the batches that were finished, the first `len(outcome.status)` rows."""

    def __init__(self, outcome: Outcome | None) -> None:
        super().__init__("interrupted")
        self.outcome = outcome


class _Exhausted(Exception):  # noqa: N818  (control flow between desk and loop, never seen outside)
    """No row may look again."""


# ---------------------------------------------------------------------------------------------------------------------
# The model, as the engine calls it


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside a data-parallel wrapper: an attack through the wrapper synchronises, or worse."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return cast(nn.Module, model.module) if isinstance(model, parallel) else model


@contextmanager
def untouched(model: nn.Module, *, seed: int = 0, training: bool | None = False) -> Generator[None]:
    """Inside: eval mode (or as it is, with None), weights frozen, a sealed seed. After: as it was, part by part."""
    modes = [(m, m.training) for m in model.modules()]
    wants = [(p, p.requires_grad) for p in model.parameters()]
    buffers = [(b, b.detach().clone()) for b in model.buffers()]
    try:
        if training is not None:
            for module, _ in modes:
                module.training = training
        for p, _ in wants:
            p.requires_grad_(False)
        with sealed(seed):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for p, want in wants:
            p.requires_grad_(want)
        with torch.no_grad():
            for b, value in buffers:
                if not torch.equal(b, value):
                    b.copy_(value)


def _precision(device: torch.device, *, low: bool) -> AbstractContextManager[Any]:
    """bfloat16 where it is wanted, else none of it, whatever surrounds the engine; nothing to switch costs nothing."""
    if low or torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, torch.bfloat16, enabled=low)
    return nullcontext()


@final
@dataclass(frozen=True)
class Caller:
    """Calls the model: in full lanes, in the layout and precision asked for, and checks what comes back."""

    model: nn.Module
    settings: Settings

    def __call__(self, z: Inputs) -> Logits:
        n, spare = len(z), -len(z) % self.settings.lanes
        if spare:
            z = torch.cat([z, z[:1].expand(spare, *z.shape[1:])])
        if self.settings.channels_last and z.ndim == 4:
            z = z.contiguous(memory_format=torch.channels_last)
        with _precision(z.device, low=self.settings.autocast):
            logits = self.raw(z)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return logits[:n] if spare else logits  # an idle slice would cost the backward a copy

    def raw(self, z: Inputs) -> Logits:
        """The model's answer to z as it is, checked to be logits."""
        try:
            logits = self.model(z)
        except (torch.OutOfMemoryError, MemoryError, KeyboardInterrupt):
            raise
        except Exception as error:
            if _out_of_memory(error):
                raise
            raise ModelError(
                f"The model raised {type(error).__name__} on an input of shape {tuple(z.shape)} ({z.dtype}): {error}"
            ) from error
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(z):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(f"The model must return logits (rows, classes); for {len(z)} rows it returned {shape}.")
        if logits.shape[1] < 2:
            raise ModelError(
                "The model returns one number per row; an attack needs a logit per class. "
                "Wrap it in adamant.models.OneLogit, which turns one logit into two."
            )
        return logits

    def alone(self, z: Inputs) -> Logits:
        """Logits of each row asked by itself, in float32 (or float64), without autocast and without fill-up rows."""
        with torch.no_grad(), _precision(z.device, low=False):
            return torch.cat([self.raw(z[i : i + 1]) for i in range(len(z))])


# ---------------------------------------------------------------------------------------------------------------------
# The books


class Desk:
    """Where every visit passes: it counts, judges and keeps. The only mutable thing in a run.

    The books hold a line for each row of the batch. The rows that are looking have a copy of theirs at the desk
    (`_seats` says which), so that a visit, beside a small network, costs few operations and gathers nothing.
    """

    def __init__(self, model: Caller, x: Inputs, settled: Mask, max_looks: int | None) -> None:
        n, device = len(x), x.device
        self.model, self.max_looks, self.visits = model, max_looks, 0
        self.found = settled.clone()  # or not worth a look: wrong already
        self.falls = 0  # how often rows were found: while it stays, so does who stands
        self.best = x.clone()
        # What a look must beat to be kept; of a found row, the loss that it was found with.
        self.loss = torch.full((n,), -torch.inf, dtype=torch.float64, device=device)
        self.forwards, self.backwards, self.checks, self.first = (
            torch.zeros(n, dtype=torch.int64, device=device) for _ in range(4)
        )
        self._sit(torch.arange(n, device=device))

    def look(self, p: Problem, z: Inputs, loss: Loss, *, grad: bool) -> Look:
        if p.index is not self._seats:
            self.settle()
            self._sit(p.index)
        cost = p.access.cost(grad=grad)
        if self.max_looks is not None:
            self._count()
            over = self.forwards[p.index] + cost.forwards > self.max_looks
            if bool((over & self._open).any()):
                raise _Exhausted  # a hard limit: no row is ever visited beyond it
        self.visits += 1
        visit = self.visits
        view = View(
            self.model, lambda logits: loss(logits, p.aim), p.threat.clip, lambda: p.rng.fold("look").fold(visit)
        )
        seen = p.access.look(view, z, grad=grad)
        self._tally = Cost(self._tally.forwards + cost.forwards, self._tally.backwards + cost.backwards)
        better = seen.loss > self._loss  # false for a NaN, and for a found row, whose bar is at infinity
        torch.where(better.view(-1, *(1,) * (z.ndim - 1)), z, self._best, out=self._best)
        torch.where(better, seen.loss, self._loss, out=self._loss)
        fooled = p.goal.reached(seen.logits).logical_and_(self._open)
        if bool(fooled.any()):
            self._judge(p, z, seen.loss, fooled.nonzero().squeeze(1))
        return seen

    def settle(self) -> None:
        """Enter in the books what the rows at the desk did since the last call."""
        self._count()
        rows = self._seats[self._open]
        self.best[rows], self.loss[rows] = self._best[self._open], self._loss[self._open].double()

    def _count(self) -> None:
        rows = self._seats[self._open]
        self.forwards[rows] += self._tally.forwards
        self.backwards[rows] += self._tally.backwards
        self._tally = Cost(0, 0)

    def _sit(self, index: Tensor) -> None:
        self._seats, self._tally = index, Cost(0, 0)
        self._best, self._open = self.best[index], ~self.found[index]
        self._loss = self.loss[index].to(self._best.dtype).masked_fill(~self._open, torch.inf)

    def _judge(self, p: Problem, z: Inputs, loss: Tensor, rows: Tensor) -> None:
        """Accept a success only inside the set, and only when the row fools the model once more, alone."""
        rows = rows[take(p.threat, rows).contains(z[rows], p.x[rows])]
        if not len(rows):
            return
        self._count()
        self.checks[p.index[rows]] += 1
        rows = rows[take(p.goal, rows).reached(self.model.alone(z[rows]))]
        places = p.index[rows]
        self.falls += 1
        self.found[places], self._open[rows] = True, False
        self._loss[rows] = torch.inf
        self.first[places] = self.forwards[places]
        self.best[places], self.loss[places] = z[rows], loss[rows].double()


# ---------------------------------------------------------------------------------------------------------------------
# The loop


def _drive(attack: Attack, p: Problem, *, last_look: bool, drop: bool) -> Any:
    """Look, drop what is done, step; returns the last state."""
    falls, lanes = p.desk.falls, p.desk.model.settings.lanes
    s = attack.init(p)
    for t in range(attack.steps + last_look):
        seen = p.look(s.z, attack.loss, grad=attack.needs == Sight.GRADIENT and t < attack.steps)
        if drop and p.desk.falls != falls:
            falls = p.desk.falls
            standing = ~p.desk.found[p.index]
            left = int(standing.sum())
            if not left:
                break
            if -(-left // lanes) < -(-len(standing) // lanes):  # fewer lanes will do: compact
                p, s, seen = take(p, standing), take(s, standing), take(seen, standing)
        if t < attack.steps:
            s = attack.step(p, s, seen, t)
    return s


def _solve(attack: Attack | Composite, p: Problem) -> None:
    """Run an attack, or the parts of a composite one after another, on the rows that still stand."""
    if not isinstance(attack, Composite):
        _drive(attack, p, last_look=True, drop=True)
        return
    for part, problem in attack.unfold(p):
        standing = ~p.desk.found[problem.index]
        if not bool(standing.any()):
            return
        _solve(part, problem if bool(standing.all()) else take(problem, standing))


def perturb(attack: Attack, model: nn.Module, x: Inputs, goal: Goal, threat: Projectable, *, rng: Rng) -> Inputs:
    """The attack's last point for every row, and nothing else: the inner maximisation of training.

    No verdicts, no early stop and no last look, so PGD(steps=k) costs k forwards and k backwards.
    The caller holds the model `untouched`.
    """
    settled = torch.ones(len(x), dtype=torch.bool, device=x.device)  # so no look is judged, kept or counted
    desk = Desk(Caller(unwrapped(model), Settings(lanes=1)), x, settled, None)
    p = Problem(x, goal, goal, threat, WhiteBox(), rng, torch.arange(len(x), device=x.device), desk)
    return _drive(attack, p, last_look=False, drop=False).z.detach()


# ---------------------------------------------------------------------------------------------------------------------
# A run: batches, devices, memory, interruption


def run(
    attack: Attack | Composite,
    model: nn.Module,
    x: Inputs,
    goal: Goal,
    threat: Projectable,
    *,
    access: Access | None = None,
    rng: Rng | None = None,
    settings: Settings | None = None,
) -> Outcome:
    """Attack every row of x and say what became of it.

    x is (n, *d) inside the threat model's box; `rng` (default: seed 0, rows 0..n-1) keys all randomness by row.
    A row's outcome does not depend on its batch. Raises InputError, AccessError or ModelError for what cannot be
    attacked, and Interrupted, with the finished batches, on Ctrl-C.
    """
    access, settings = access or WhiteBox(), settings or Settings()
    rng = rng or Rng.of(0, len(x))
    _check(attack, model, x, threat, access)
    device = torch.device(settings.device) if settings.device else _device(model, x)
    caller, size = Caller(unwrapped(model), settings), settings.batch_size or _batch_size(x, device)
    done: list[Outcome] = []
    at = 0
    with untouched(caller.model, seed=int(rng.key[0])):
        while at < len(x):
            rows = torch.arange(at, min(at + size, len(x)))
            try:
                done.append(_run_batch(attack, caller, *take((x, goal, rng), rows), take(threat, rows), access, device))
            except KeyboardInterrupt:
                raise Interrupted(cat(done) if done else None) from None
            except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
                if not _out_of_memory(error) or size == 1:
                    raise
                size = max(1, size // 2)
                continue
            at += size
            if settings.watch:
                settings.watch(min(at, len(x)), len(x))
    return cat(done)


def _run_batch(
    attack: Attack | Composite,
    model: Caller,
    x: Inputs,
    goal: Goal,
    rng: Rng,
    threat: Projectable,
    access: Access,
    device: torch.device,
) -> Outcome:
    x, goal, rng = x.to(device), _to(goal, device), rng.to(device)
    with torch.no_grad():
        clean = model(x)
    if clean.isnan().any():
        row = int(clean.isnan().any(1).nonzero()[0])
        raise ModelError(f"The model returns NaN on a clean input (row {row} of its batch): no attack can be judged.")
    goal.check(clean.shape[1])
    wrong = goal.reached(clean)
    desk = Desk(model, x, wrong, model.settings.max_looks)
    desk.checks += 1
    status = torch.where(wrong, int(Status.WRONG_ALREADY), int(Status.ROBUST))
    right = (~wrong).nonzero().squeeze(1)
    p = Problem(x, goal, goal, threat, access, rng, torch.arange(len(x), device=device), desk)
    try:
        if len(right):
            _solve(attack, take(p, right))
    except _Exhausted:
        status[~desk.found] = int(Status.OUT_OF_BUDGET)
    desk.settle()
    status[desk.found & ~wrong] = int(Status.BROKEN)
    inside = threat.contains(desk.best, x)
    status[~inside] = int(Status.INVALID)
    best = torch.where(inside.view(-1, *(1,) * (x.ndim - 1)), desk.best, x)
    loss = torch.where(desk.forwards > 0, desk.loss, torch.nan)
    outcome = Outcome(best, status, threat.size(best, x), loss, desk.forwards, desk.backwards, desk.checks, desk.first)
    return _to(outcome, torch.device("cpu"))


def _to(record: Any, device: torch.device) -> Any:
    fields = {name: v.to(device) for name, v in vars(record).items() if isinstance(v, Tensor)}
    return replace(record, **fields)


def _check(attack: Attack | Composite, model: Any, x: Any, threat: Projectable, access: Access) -> None:
    if not isinstance(model, nn.Module):
        raise ModelError(f"The model is a {type(model).__name__}, not a torch module: wrap it with adamant.load_model.")
    if not isinstance(x, Tensor) or x.ndim < 2 or not len(x):
        what = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"Inputs must be a non-empty batch (rows, ...), got {what}.")
    if attack.needs > access.gives:
        raise AccessError(
            f"{type(attack).__name__} needs the {_SHOWN[attack.needs]} and {type(access).__name__} gives the "
            f"{_SHOWN[access.gives]}: use access=NES(...) to estimate gradients from scores, or an attack that needs "
            f"no more than the {_SHOWN[access.gives]} (adamant attacks lists what each needs)."
        )
    threat.check(x)


_SHOWN = {Sight.LABELS: "predicted label", Sight.SCORES: "scores", Sight.GRADIENT: "gradient"}


def _device(model: nn.Module, x: Tensor) -> torch.device:
    return next((p.device for p in model.parameters()), x.device)


def _batch_size(x: Tensor, device: torch.device) -> int:
    """Small enough to stay in the processor's caches, large enough to fill its units; memory errors halve it."""
    most = 128 if device.type == "cpu" else 1024
    return max(16, min(most, 2**26 // max(1, x[0].numel())))


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "not enough memory" in str(error).lower()
