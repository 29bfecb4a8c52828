"""The adversarial saliency map: which few entries raise the target's score and lower all others; JSMA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from adamant._types import Inputs, Labels, Logits
from adamant.access import Look, Sight
from adamant.batch import Rows, per_row
from adamant.desk import Problem
from adamant.errors import InputError
from adamant.goals import Goal, Targeted
from adamant.losses import Loss
from adamant.threats import L0

_AT_ONCE = 2**22  # pairs that are compared at once


def jacobian(model: nn.Module, x: Inputs) -> Tensor:
    """The slope of every logit by every entry, (n, classes, *d): what Papernot et al. call the forward derivative."""
    with torch.enable_grad():
        z = x.detach().requires_grad_(True)
        sums = model(z).sum(0)
        last = len(sums) - 1
        slopes = [torch.autograd.grad(s, z, retain_graph=i < last)[0] for i, s in enumerate(sums)]
    return torch.stack(slopes, 1)


def saliency_map(forward: Tensor, target: Labels, *, down: bool = False) -> Tensor:
    """What each entry alone is worth for the target when it is increased (or decreased), (n, *d), from the `jacobian`.

    Zero where the target would not rise or the sum of the other classes would not fall (Papernot et al., equation 8).
    """
    own = forward[torch.arange(len(target), device=target.device), target]
    others = forward.sum(1) - own
    return worth(-own, others) if down else worth(own, -others)


def worth(rises: Tensor, falls: Tensor) -> Tensor:
    """The product where both are positive, zero elsewhere."""
    return torch.where((rises > 0) & (falls > 0), rises * falls, 0.0)


def best_single(rises: Tensor, falls: Tensor) -> tuple[Tensor, Tensor]:
    """The entry of each row worth most, (n, 1), and what it is worth, (n,); of equals the first."""
    top = worth(rises.double(), falls.double()).max(1)
    return top.indices[:, None], top.values


def best_pair(rises: Tensor, falls: Tensor) -> tuple[Tensor, Tensor]:
    """The two entries of each row that are worth most together, (n, 2), and what they are worth, (n,).

    Exact without looking at all pairs: an entry that two others match in both respects can be replaced by one of
    them, so the best pair is among the few that at most one other matches.
    """
    n = len(rises)
    rises, order = rises.sort(dim=1, descending=True, stable=True)
    falls = falls.gather(1, order)
    nothing = falls.new_full((n, 1), -torch.inf)
    most = torch.cat([nothing, falls[:, :-1]], 1).cummax(1).values  # of those before, which rise as much or more
    runner_up = torch.cat([nothing, falls.minimum(most)[:, :-1]], 1).cummax(1).values
    keep = falls > runner_up
    place = keep.cumsum(1) - 1
    m = max(2, int(place[:, -1].max()) + 1)
    row, at = keep.nonzero(as_tuple=True)
    candidates, a, b = order.new_zeros(n, m), *rises.new_full((2, n, m), -torch.inf).double()
    to = row, place[row, at]
    candidates[to], a[to], b[to] = order[row, at], rises[row, at].double(), falls[row, at].double()

    best, pair = a.new_zeros(n), order.new_zeros(n)
    block, later = max(1, _AT_ONCE // (n * m)), torch.arange(m, device=a.device)
    for i in range(0, m, block):
        up, down = (v[:, i : i + block, None] + v[:, None, :] for v in (a, b))
        value = torch.where(later > later[i : i + block, None], worth(up, down), 0.0).flatten(1)
        top = value.max(1)
        better = top.values > best
        best, pair = torch.where(better, top.values, best), torch.where(better, top.indices + i * m, pair)
    return candidates.gather(1, torch.stack([pair // m, pair % m], 1)), best


@final
@dataclass(frozen=True)
class Rivals:
    """The target's logit, and the sum of all others; untargeted, the sum of all others than the label, and its own.

    With `probabilities` the target's log probability, and the same with a minus: what one loses the others share.
    """

    probabilities: bool = False

    def __call__(self, logits: Logits, goal: Goal) -> Tensor:
        logits = logits if logits.dtype == torch.float64 else logits.float()
        of = (goal.target if isinstance(goal, Targeted) else goal.anchor)[:, None]
        if self.probabilities:
            own = logits.log_softmax(1).gather(1, of).squeeze(1)
            others = -own
        else:
            own, others = logits.gather(1, of).squeeze(1), logits.scatter(1, of, 0.0).sum(1)
        return torch.stack([own, others] if isinstance(goal, Targeted) else [others, own], 1)


@final
@dataclass(frozen=True, kw_only=True)
class JSMA:
    """Changes, at each step, the two entries that raise the target's logit and lower the sum of the others most.

    Papernot et al., 2016, arXiv:1511.07528. Untargeted the map is turned around: the label falls, the others rise
    (Wiyatno & Xu, 2018, arXiv:1808.07945). Two backwards for a step. It stops at its first success.
    """

    theta: float = 1.0  # how far an entry goes at each step, in widths of the box; below zero entries are decreased
    gamma: float = 0.145  # the share of the entries that may change, within the budget
    pairs: bool = True  # False: one entry for a step
    # The paper's map is of logits, that of cleverhans 3.1 of probabilities. A model with one logit needs the latter:
    # as logits are free up to a shift, its other one never falls.
    probabilities: bool = False
    steps: int = 10_000  # at most; gamma ends it sooner
    needs: ClassVar[Sight] = Sight.GRADIENT
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (L0,)

    @dataclass(frozen=True)
    class State(Rows):
        """Where it is, and whether it has arrived or can go no further."""

        z: Tensor
        done: Tensor

    @property
    def loss(self) -> Loss:
        """What is to rise, and what is to fall."""
        return Rivals(self.probabilities)

    def init(self, p: Problem) -> State:
        if not self.theta or not 0 < self.gamma <= 1:
            raise InputError(
                f"JSMA needs theta other than 0 and gamma above 0 and up to 1, got theta={self.theta}, "
                f"gamma={self.gamma}: theta is the step in widths of the box, gamma a share of the entries."
            )
        return self.State(p.x, torch.zeros(len(p.x), dtype=torch.bool, device=p.x.device))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        moved = p.threat.clip(s.z + self.theta * p.threat.width)
        # Less than a hundredth of a step, as between 253/255 and 1, gains nothing and costs a whole entry.
        far = (moved - s.z).abs() > 0.01 * abs(self.theta) * p.threat.width
        able = far & (p.threat.free(torch.ones_like(s.z)) > 0)
        able, last = self._affordable(p, s.z, able)
        up = seen.slope if self.theta > 0 else -seen.slope
        rises, falls = (
            torch.where(able.flatten(1), v, -torch.inf) for v in (up[:, 0].flatten(1), -up[:, 1].flatten(1))
        )
        where, value = best_pair(rises, falls) if self.pairs else best_single(rises, falls)
        if self.pairs and bool(last.any()):
            one, alone = best_single(rises, falls)
            where, value = torch.where(last[:, None], one, where), torch.where(last, alone, value)
        done = p.goal.reached(seen.logits) | ~(value > 0)
        chosen = torch.zeros_like(able.flatten(1)).scatter(1, where, True).view_as(able)
        return self.State(torch.where(chosen & ~per_row(done, s.z), moved, s.z), done)

    def _affordable(self, p: Problem, z: Inputs, able: Tensor) -> tuple[Tensor, Tensor]:
        """Which entries may be among the next to change, and in which rows only one more may, which then goes alone."""
        assert isinstance(p.threat, L0)
        changed = z != p.x
        entries = int(self.gamma * z[0].numel()) - changed.flatten(1).sum(1)
        budget = p.threat.budget(z).floor() - p.threat.size(z, p.x).to(z)
        paid = changed.any(1, keepdim=True) if p.threat.pixels else changed  # a pixel is paid for once
        new = per_row(entries > 0, z) & (paid | per_row(budget > 0, z))
        return able & (changed | new), (entries == 1) | (budget == 1)
