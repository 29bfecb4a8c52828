"""Carlini and Wagner's attack on few entries: their L2 attack, over and over, with ever fewer free entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Mask
from adamant.access import Look, Sight
from adamant.attacks.carlini import adam, artanh, check_box
from adamant.batch import Rows, per_row
from adamant.desk import Problem
from adamant.losses import Margin
from adamant.threats import L0


@final
@dataclass(frozen=True, kw_only=True)
class CarliniWagnerL0:
    """The L2 attack, at each success of which the entries that do least for it are put back and stay as they were.

    Carlini & Wagner, 2017, arXiv:1608.04644, section VI.B: an entry does the slope of the margin times its change. The
    next round goes on from there, and a row is done when the weight of the margin has grown to `most` without success.
    With `drop` several are put back at once: 0.01 took a third of the passes on MNIST, and ended with half again the
    entries.
    """

    steps: int = 2000
    each: int = 20  # steps after which the weight grows tenfold where there was no success
    rate: float = 0.3  # of Adam
    weight: float = 1.0  # of the margin, at first
    most: float = 10000.0  # a row whose weight is beyond this is done
    drop: float = 0.0  # what all the entries that are put back at once may do, as a share of the whole; one at least
    inset: float = 1e-6  # how far from the edges of the box artanh is kept, as a share: at them it is infinite
    loss: Margin = Margin()
    needs: ClassVar[Sight] = Sight.GRADIENT
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (L0,)

    @dataclass(frozen=True)
    class State(Rows):
        """Where it is, in the box and in the space of artanh; Adam's moments; free entries; weight, steps since."""

        z: Tensor
        w: Tensor
        mean: Tensor
        square: Tensor
        open: Tensor  # 1 where an entry may still change, else 0
        weight: Tensor
        age: Tensor
        done: Mask

    def init(self, p: Problem) -> State:
        check_box(p, "CarliniWagnerL0", "SigmaZero")
        w, zero = artanh(p, p.x, self.inset), torch.zeros_like(p.x)
        one = torch.ones_like(p.x.flatten(1)[:, 0])
        return self.State(p.x, w, zero, zero, p.threat.free(zero + 1), one * self.weight, one.long() * 0, one < 0)

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        width, start, fooled = p.threat.width, artanh(p, p.x, self.inset), p.goal.reached(seen.logits)
        change = (s.z - p.x) / width
        kept = torch.where(per_row(fooled, change), s.open * self._useful(p, change * seen.slope, s.z != p.x), s.open)
        tired = ~fooled & (s.age >= self.each)
        weight = torch.where(tired, 10 * s.weight, s.weight)

        fresh = per_row(fooled | tired, change)  # Adam begins anew
        mean, square = (torch.where(fresh, 0, v) for v in (s.mean, s.square))
        age = torch.where(fooled | tired, 0, s.age) + 1
        slope = 2 * change - per_row(weight * (seen.loss < 0), change) * seen.slope * width
        along, mean, square = adam(mean, square, slope * (1 - s.w.tanh().square()) / 2, age)
        w = torch.where(kept > 0, s.w - self.rate * along, start)
        z = p.threat.clip(p.x + (w.tanh() - start.tanh()) * width / 2)
        return self.State(z, w, mean, square, kept, weight, age, weight > self.most)

    def _useful(self, p: Problem, gain: Tensor, moved: Tensor) -> Tensor:
        """1 where an entry (or a pixel) does too much to be put back, else 0."""
        assert isinstance(p.threat, L0)
        pixels = p.threat.pixels
        gain, moved = (gain.sum(1, keepdim=True), moved.any(1, keepdim=True)) if pixels else (gain, moved)
        does = torch.where(moved, gain, -torch.inf).flatten(1)
        ranked, order = does.sort(dim=1, stable=True)
        together = ranked.clamp_min(0).cumsum(1)
        little = together <= self.drop * together[:, -1:]
        still = (ranked == -torch.inf).sum(1, keepdim=True)  # those that did not move, and one more
        little |= torch.arange(little.shape[1], device=little.device) <= still
        kept = torch.ones_like(does).scatter(1, order, (~little).to(does)).view(gain.shape)
        return kept.expand_as(p.x)
