"""Decision-based attack by circles through the input and its best: SurFree."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Inputs, Mask, Scores
from adamant.access import Look, Sight
from adamant.attacks.decision import VERDICT, begin, bisect, fools, to_boundary
from adamant.attacks.pictures import transformed
from adamant.batch import Rows, Shared, per_row, where
from adamant.desk import Problem
from adamant.losses import Loss
from adamant.threats import L2
from adamant.threats.balls import unit

_WIDEN = 32  # times that an angle is made wider, at most
_RIGHT = math.pi / 2  # the angle at which the circle is back at x


@final
@dataclass(frozen=True, kw_only=True)
class SurFree:
    """In a random plane, around the circle from the best success towards x, as far as it fools; no normal is estimated.

    Maho et al., 2021, arXiv:2011.12807. A step is one plane: a query for each way around, and some eight more where one
    of them fools. Of images, the directions are made of the frequencies that the image has itself.
    """

    steps: int = 500
    angle: float = 30.0  # the first to be tried, in degrees
    rho: float = 0.95  # the angle is so much smaller after a plane in vain, and larger after another
    halvings: int = 7  # to find the best angle
    low: float = 0.5  # the share of an image's frequencies, the lowest, in a direction; 0: white noise
    memory: int = 100  # a new direction is at right angles to so many of the last
    tries: int = 100  # to find a first success in noise
    examples: Shared | None = None  # inputs to start from; needed where a target is given
    loss: ClassVar[Loss] = VERDICT
    needs: ClassVar[Sight] = Sight.LABELS
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (L2,)

    @dataclass(frozen=True)
    class State(Rows):
        """The best success, the angle to try, the last directions (n, memory, size), and rows without a success."""

        z: Tensor
        angle: Tensor
        spectrum: Tensor  # how much of each frequency a direction may have
        last: Tensor
        done: Tensor

    def init(self, p: Problem) -> State:
        z, found = begin(p, self.examples, self.tries)
        z = to_boundary(p, z, 2.0**-self.halvings, found)
        angle = torch.full_like(z.flatten(1)[:, 0], math.radians(self.angle))
        return self.State(z, angle, self._spectrum(p), z.new_zeros(len(z), 0, z[0].numel()), ~found)

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        change = s.z - p.x
        v = self._direction(p, s, change, t)
        distance = per_row(change.flatten(1).norm(dim=1), change)

        def at(angle: Scores) -> Inputs:
            a = per_row(angle, change)
            return p.threat.clip(p.x + a.cos() * (a.cos() * change + a.sin() * distance * v))

        one = fools(p, at(s.angle), ~s.done)
        other = fools(p, at(-s.angle), ~s.done & ~one)
        way, fooled = torch.where(one, 1.0, -1.0).to(s.angle), one | other
        least, most = self._bracket(p, lambda a: at(way * a), s.angle, fooled)
        best = where(fooled, at(way * least), s.z)
        best, _ = bisect(
            p, lambda share: at(way * (most + share * (least - most))), best, torch.ones_like(least),
            2.0**-self.halvings, fooled,
        )  # fmt: skip
        best = where(p.threat.size(best, p.x) < p.threat.size(s.z, p.x), best, s.z)
        angle = (s.angle * torch.where(fooled, 1 / self.rho, self.rho)).clamp(max=_RIGHT / 2)
        last = torch.cat([s.last, v.flatten(1)[:, None]], 1)
        return self.State(best, angle, s.spectrum, last[:, max(0, last.shape[1] - self.memory) :], s.done)

    def _spectrum(self, p: Problem) -> Tensor:
        """The cosine transform of an image, squashed, low frequencies only; zero where there is none."""
        if p.x.ndim != 4 or not self.low:
            return torch.zeros_like(p.x)
        h, w = p.x.shape[2:]
        size = (torch.arange(h)[:, None] / h + torch.arange(w) / w).to(p.x)
        kept = size <= size.flatten().sort().values[max(0, round(self.low * h * w) - 1)]
        found = transformed(4 / p.threat.width * p.x, _cosines(h).to(p.x), _cosines(w).to(p.x)).tanh()
        return found * (kept & (found.abs() > 1e-3))  # less is rounding

    def _direction(self, p: Problem, s: State, change: Tensor, t: int) -> Tensor:
        """A random direction at right angles to the change and, but for what that takes away, to the last ones."""
        shape, rng = p.x.shape[1:], p.rng.fold("plane").fold(t)
        v = rng.normal(*shape, dtype=p.x.dtype)
        if p.x.ndim == 4 and self.low:
            back = [(_cosines(k) / torch.ones(k).index_fill(0, torch.tensor(0), 2)[:, None]).T.to(v) for k in shape[1:]]
            tone = transformed(s.spectrum * (rng.fold("signs").integers(3, *shape).to(v) - 1), back[0], back[1])
            v = where(tone.flatten(1).abs().amax(1) > 0, tone, v)
        v = p.threat.free(v).flatten(1)
        room = v.shape[1] // 4  # with few entries fewer directions leave room for another
        for w in (*s.last.unbind(1)[max(0, s.last.shape[1] - room) :], unit(change).flatten(1)):
            v = v - (v * w).sum(1, keepdim=True) * w
        return unit(v).view_as(change)

    def _bracket(self, p: Problem, at: Callable[[Scores], Inputs], angle: Scores, rows: Mask) -> tuple[Scores, Scores]:
        """From an angle that fools, wider by as much again until one does not: the last that does, and the next."""
        least, most = angle, (2 * angle).clamp(max=_RIGHT)
        for _ in range(_WIDEN):
            rows = rows & (most < _RIGHT)
            if not bool(rows.any()):
                break
            rows = fools(p, at(most), rows)
            least = torch.where(rows, most, least)
            most = torch.where(rows, (most + angle).clamp(max=_RIGHT), most)
        return least, most


def _cosines(k: int) -> Tensor:
    """The cosine transform of length k, as a matrix (frequency, place)."""
    return (math.pi / k * torch.arange(k, dtype=torch.float64)[:, None] * (torch.arange(k) + 0.5)).cos()
