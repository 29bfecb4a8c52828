"""What an attack may know, and the desk where each of its visits passes: counted, judged, and kept where it is best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from adamant._types import Inputs, Logits, Mask
from adamant.access import Access, Cost, Look, View
from adamant.batch import PerRow, Rows, take
from adamant.calling import Caller
from adamant.errors import Spent
from adamant.goals import Goal
from adamant.losses import Loss, Margin
from adamant.random import Rng
from adamant.threats import Anchored, Parametric, Projectable

# How far a smallest success that rounding undid is pushed on, as a share of the change, until it holds alone.
_PUSHES = (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)


def won(logits: Logits, goal: Goal, tolerance: float) -> Mask:
    """Which rows have what the goal wants, by more than this share of the spread of their logits."""
    reached = goal.reached(logits)
    if not tolerance:
        return reached
    spread = logits.double().std(1).nan_to_num(0.0, 0.0)  # a class at minus infinity has none, and is no rival
    return reached & (Margin()(logits, goal) > tolerance * spread)


def pictures(change: Parametric, x: Inputs, theta: Tensor) -> Inputs:
    """What the parameters make of each input, one by one: so it is judged, and so it is handed out."""
    with torch.no_grad():
        each = (take((change, x, theta), row[None]) for row in torch.arange(len(x), device=x.device))
        return torch.cat([one.apply(picture, z) for one, picture, z in each])


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
    desk: Desk | Blind
    # Under a threat with parameters x and z are these, and the model sees `change.apply(picture, z)`.
    picture: Tensor | None = None
    change: Parametric | None = None
    # By what the points of a row are compared; None: by the loss of the attack that looks. Attacks of several losses
    # that work on one after the other need one measure for all.
    yardstick: Loss | None = None

    @cached_property
    def project(self) -> Callable[[Inputs], Inputs]:
        """To the nearest member of the threat model; what depends on x alone is worked out once for all steps."""
        x, threat = self.x, self.threat
        return threat.around(x) if isinstance(threat, Anchored) else lambda z: threat.project(z, x)

    def look(self, z: Inputs, loss: Loss, *, grad: bool = False) -> Look:
        """Visit the model at z: counted, judged, and kept where it is the best so far."""
        return self.desk.look(self, z, loss, grad=grad)

    def looks(self, zs: Tensor, loss: Loss) -> Look:
        """Visit the model at k points of each row at once, zs (k, n, *d); the look's tensors lead with (k, n)."""
        return self.desk.looks(self, zs, loss)


class Desk:
    """Where every visit passes. The only mutable thing in a run.

    With a budget the question is whether a row falls, and its first success closes it. Without one (`smallest`) the
    question is how little suffices: rows stay open and the smallest success is kept.

    The books hold a line for each row of the batch. The rows that are looking have a copy of theirs at the desk
    (`_seats` says which), so that a visit, beside a small network, costs few operations and gathers nothing.
    """

    def __init__(
        self,
        model: Caller,
        x: Inputs,
        classes: int,
        settled: Mask,
        at_once: int,
        *,
        smallest: bool,
        clean: Tensor | None = None,
    ) -> None:
        n, device = len(x), x.device
        self.model, self.classes, self.at_once, self.smallest = model, classes, at_once, smallest
        self.clean = torch.full((n,), torch.nan, device=device) if clean is None else clean.double()  # margins
        most = model.settings.max_looks
        if most is None:
            self.max_looks: Tensor | None = None
        else:
            values = most.values if isinstance(most, PerRow) else torch.full((n,), most)
            self.max_looks = values.to(device, torch.int64)
        self.found = torch.zeros(n, dtype=torch.bool, device=device)
        self.spent = self.found.clone()  # out of looks
        self.resting = settled.clone()  # not worth a look, for now: wrong already, or the attack has no more to ask
        self.roams = False
        self.over = ""  # why the model answers no more
        self.closings = 0  # how often rows were closed: while it stays, so does who is open
        self.best = x.clone()
        self.size = torch.full((n,), torch.inf, dtype=torch.float64, device=device)  # of the best, once it is a success
        # What a look must beat to be kept; of a fallen row, the loss that it fell with.
        self.loss = torch.full_like(self.size, -torch.inf)
        self.forwards, self.backwards, self.checks, self.first = (
            torch.zeros(n, dtype=torch.int64, device=device) for _ in range(4)
        )
        self._sit(torch.arange(n, device=device))

    # --- visits -------------------------------------------------------------------------------------------------------

    def look(self, p: Problem, z: Inputs, loss: Loss, *, grad: bool) -> Look:
        """Visit the model at z. What is shown of a row that may not look is NaN, or what it is, as lanes allow."""
        cost = p.access.cost(grad=grad)
        if not self._admit(p, cost.forwards):
            return self._nothing(p, z, loss, grad=grad)
        try:
            seen = self._visit(p, z, loss, grad=grad)
        except Spent as why:
            self._end(why)
            return self._nothing(p, z, loss, grad=grad)
        scores = seen.loss.shape[1] if seen.loss.ndim > 1 else 1  # a gradient for each
        self._tally = Cost(self._tally.forwards + cost.forwards, self._tally.backwards + cost.backwards * scores)
        self._enter(p, z, seen.loss, seen.logits)
        return seen

    def looks(self, p: Problem, zs: Tensor, loss: Loss) -> Look:
        """Visit the model at several points of each row, zs (k, n, *d), in few large batches; no gradient.

        Returns a look whose tensors lead with (k, n). A round: a row that is open when it begins is visited at all its
        points, however the first of them end, and no further than its budget.
        """
        k, n = zs.shape[:2]
        cost = p.access.cost(grad=False).forwards
        if not self._admit(p, cost):
            return self._nothings(p, zs, loss)
        self._count()
        turns = torch.full((n,), k, device=zs.device)
        if self.max_looks is not None:
            turns = turns.minimum((self.max_looks - self.forwards)[self._seats] // cost)
        wanted = (torch.arange(k, device=zs.device)[:, None] < turns) & self._open
        point, row = wanted.nonzero(as_tuple=True)
        try:
            parts = [
                self._ask(take(p, r), zs[i, r], loss, grad=False)
                for i, r in zip(point.split(self.at_once), row.split(self.at_once), strict=True)
            ]
        except Spent as why:
            self._end(why)
            return self._nothings(p, zs, loss)
        logits, score = (
            _spread(torch.cat([getattr(s, name) for s in parts]), wanted.flatten(), k * n).view(k, n, *shape)
            for name, shape in (("logits", parts[0].logits.shape[1:]), ("loss", parts[0].loss.shape[1:]))
        )
        self.forwards[self._seats] += wanted.sum(0) * cost
        for i in range(k):
            self._enter(p, zs[i], score[i], logits[i], later=wanted[i + 1 :].sum(0) * cost)
        return Look(logits, score, None)

    def standing(self, p: Problem) -> Mask:
        """Which rows may still look."""
        return ~(self.found | self.spent | self.resting)[p.index]

    def rest(self, p: Problem, rows: Mask) -> None:
        """The attack asks nothing more of these rows, though another might."""
        self._seat(p)
        if bool((rows & self._open).any()):
            self.resting[p.index[rows]] = True
            self._close(rows & self._open)

    def best_of(self, p: Problem) -> Tensor:
        """The point of each row that came nearest to success so far; the input where nothing was tried."""
        self.settle()
        return self.best[p.index]

    def left(self, p: Problem) -> Tensor:
        """What the best point leaves of the margin that the input itself has, by row; NaN where nothing was tried."""
        assert p.yardstick is not None
        self.settle()
        best = self.loss[p.index]
        return torch.where(best.isinf(), torch.nan, best / self.clean[p.index])

    def tally(self) -> Tensor:
        """Forwards, backwards and checks of every row so far, (n, 3)."""
        self._count()
        return torch.stack((self.forwards, self.backwards, self.checks), 1)

    def wake(self, p: Problem, *, roams: bool = False) -> None:
        """A new attack begins; one that roams looks outside of the threat model on purpose."""
        self.roams = roams
        if bool(self.resting[p.index].any()):
            self.settle()
            self.resting[p.index] = False
            self._sit(p.index)

    def _seat(self, p: Problem) -> None:
        if p.index is not self._seats:
            self.settle()
            self._sit(p.index)

    def _admit(self, p: Problem, forwards: int) -> bool:
        """Close the rows that cannot afford so many forwards; is anybody left?"""
        self._seat(p)
        if self.max_looks is not None:
            self._count()
            over = self._open & ((self.forwards + forwards > self.max_looks)[self._seats])
            if bool(over.any()):  # a hard limit: no row is ever visited beyond it
                self.spent[self._seats[over]] = True
                self._close(over)
        return self._idle < len(self._seats)

    def _nothing(self, p: Problem, z: Inputs, loss: Loss, *, grad: bool) -> Look:
        """What a visit shows of rows that may not look."""
        logits = torch.full((len(z), self.classes), torch.nan, dtype=z.dtype, device=z.device)
        score = torch.full_like(loss(logits, p.aim), torch.nan)
        return Look(logits, score, z.new_full((*score.shape, *z.shape[1:]), torch.nan) if grad else None)

    def _nothings(self, p: Problem, zs: Tensor, loss: Loss) -> Look:
        none, k = self._nothing(p, zs[0], loss, grad=False), len(zs)
        return Look(none.logits.expand(k, *none.logits.shape), none.loss.expand(k, *none.loss.shape), None)

    def _visit(self, p: Problem, z: Inputs, loss: Loss, *, grad: bool) -> Look:
        n, lanes = len(z), self.model.settings.lanes
        if -(-(n - self._idle) // lanes) == -(-n // lanes):
            return self._ask(p, z, loss, grad=grad)
        seen = self._ask(take(p, self._open), z[self._open], loss, grad=grad)
        logits, score = (_spread(v, self._open, n) for v in (seen.logits, seen.loss))
        return Look(logits, score, None if seen.grad is None else _spread(seen.grad, self._open, n))

    def _ask(self, p: Problem, z: Inputs, loss: Loss, *, grad: bool) -> Look:
        done = self._tally.forwards
        rng = lambda: p.rng.fold("look").fold(self.forwards[p.index] + done)  # noqa: E731
        view = View(self._shown(p), lambda logits: loss(logits, p.aim), p.threat.clip, p.threat.free, rng)
        return p.access.look(view, z, grad=grad)

    def _shown(self, p: Problem) -> Callable[[Inputs], Logits]:
        change, picture = p.change, p.picture
        if change is None or picture is None:
            return self.model
        return lambda z: self.model(change.apply(picture, z))

    def _alone(self, p: Problem, z: Inputs) -> Logits:
        if p.change is None or p.picture is None:
            return self.model.alone(z)
        return self.model.alone(pictures(p.change, p.picture, z))

    def _holds(self, p: Problem, z: Inputs) -> Mask:
        """Ask rows alone, as often as the settings say: do most of the answers fool, by the tolerance?"""
        settings = self.model.settings
        self.checks[p.index] += settings.votes
        ayes = torch.zeros_like(p.index)
        for _ in range(settings.votes):
            ayes += won(self._alone(p, z), p.goal, settings.tolerance)
        return 2 * ayes > settings.votes

    # --- judging ------------------------------------------------------------------------------------------------------

    def _enter(self, p: Problem, z: Inputs, loss: Tensor, logits: Tensor, *, later: Tensor | None = None) -> None:
        """Keep what is better, judge what fooled; `later` forwards in the books of each row come after this look."""
        if p.yardstick is not None:
            loss = p.yardstick(logits, p.goal)
        loss = (loss if loss.ndim == 1 else loss[:, 0]).to(self._loss)  # a model may answer in wider numbers
        better = loss > self._loss  # false for a NaN, and where the bar is at infinity
        if self.roams and not self.smallest:
            better &= p.threat.contains(z, p.x)
        torch.where(better.view(-1, *(1,) * (z.ndim - 1)), z, self._best, out=self._best)
        torch.where(better, loss, self._loss, out=self._loss)
        fooled = p.goal.reached(logits).logical_and_(self._open)
        if bool(fooled.any()):
            self._judge(p, z, loss, fooled.nonzero().squeeze(1), later)

    def _judge(self, p: Problem, z: Inputs, loss: Tensor, rows: Tensor, later: Tensor | None) -> None:
        """Accept a success only inside the set, and only when the row fools the model once more, alone."""
        rows = rows[take(p.threat, rows).contains(z[rows], p.x[rows])]
        # Of all the successes of a row only the smallest is asked alone, in `confirm`, where a look is to be believed.
        ask = not self.smallest or self.model.settings.autocast or not p.access.exact
        if self.smallest and len(rows):
            size = take(p.threat, rows).size(z[rows], p.x[rows])
            smaller = size < self.size[p.index[rows]]
            rows = rows[smaller]
        if not len(rows):
            return
        self._count()
        if ask:
            try:
                rows = rows[self._holds(take(p, rows), z[rows])]
            except Spent as why:
                self._end(why)
                return
        places = p.index[rows]
        self.best[places], self.loss[places] = z[rows], loss[rows].double()
        if self.smallest:
            self.size[places] = take(p.threat, rows).size(z[rows], p.x[rows])
        looks = self.forwards[places] - (0 if later is None else later[rows])
        self.first[places] = torch.where(self.first[places] > 0, self.first[places], looks)
        self._bare[rows], self._loss[rows] = False, torch.inf
        if not self.smallest and len(rows):
            self.found[places], self._open[rows] = True, False
            self._idle += len(rows)
            self.closings += 1

    def confirm(self, p: Problem) -> None:
        """Ask the smallest success of each row alone, at last; one that rounding undoes is pushed on until it holds."""
        self.settle()
        rows = (self.size[p.index].isfinite() & ~self.found[p.index]).nonzero().squeeze(1)
        for push in _PUSHES:
            if not len(rows):
                return
            q = take(p, rows)
            z = q.threat.clip(q.x + (self.best[q.index] - q.x) * (1 + push)) if push else self.best[q.index]
            try:
                holds = self._holds(q, z) & q.threat.contains(z, q.x)
            except Spent as why:
                self.over, self.spent[q.index] = str(why), True
                break
            self.best[q.index[holds]], self.found[q.index[holds]] = z[holds], True
            rows = rows[~holds]
        self.first[p.index[rows]] = 0

    # --- the books ----------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Enter in the books what the rows at the desk did since the last call."""
        self._count()
        rows = self._seats[self._bare]
        self.best[rows], self.loss[rows] = self._best[self._bare], self._loss[self._bare].double()

    def _count(self) -> None:
        rows = self._seats[self._open]
        self.forwards[rows] += self._tally.forwards
        self.backwards[rows] += self._tally.backwards
        self._tally = Cost(0, 0)

    def _close(self, rows: Mask) -> None:
        self.settle()
        self._open &= ~rows
        self._bare &= ~rows
        self._loss.masked_fill_(rows, torch.inf)
        self._idle = len(rows) - int(self._open.sum())
        self.closings += 1

    def _end(self, why: Spent) -> None:
        """The model answers no more: every row at the desk is out of looks."""
        self.over = str(why)
        self.spent[self._seats[self._open]] = True
        self._close(self._open.clone())

    def _sit(self, index: Tensor) -> None:
        self._seats, self._tally = index, Cost(0, 0)
        self._open = ~(self.found | self.spent | self.resting)[index]
        self._bare = self._open & self.size[index].isinf()  # no success so far: the best is the one of highest loss
        self._idle = len(index) - int(self._open.sum())
        self._best = self.best[index]
        self._loss = self.loss[index].to(self._best.dtype).masked_fill(~self._bare, torch.inf)


class Blind:
    """A desk that neither counts nor judges nor keeps: for training, where only the last point matters."""

    def __init__(self, model: Caller) -> None:
        self.model, self._visits = model, 0

    def look(self, p: Problem, z: Inputs, loss: Loss, *, grad: bool) -> Look:
        self._visits += 1
        visit = self._visits
        rng = lambda: p.rng.fold("look").fold(visit)  # noqa: E731
        view = View(self.model, lambda logits: loss(logits, p.aim), p.threat.clip, p.threat.free, rng)
        return p.access.look(view, z, grad=grad)

    def looks(self, p: Problem, zs: Tensor, loss: Loss) -> Look:
        parts = [self.look(p, z, loss, grad=False) for z in zs]
        return Look(torch.stack([s.logits for s in parts]), torch.stack([s.loss for s in parts]), None)


def _spread(values: Tensor, rows: Mask, n: int) -> Tensor:
    """Values of the rows that the mask names as values of all n, NaN for the others."""
    if len(values) == n:
        return values
    out = values.new_full((n, *values.shape[1:]), torch.nan)
    out[rows] = values
    return out
