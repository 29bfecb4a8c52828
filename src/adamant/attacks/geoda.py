"""Decision-based attack by the normal of the boundary, taken for flat: GeoDA."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Inputs, Mask
from adamant.access import Look, Sight
from adamant.attacks.decision import VERDICT, begin, bisect, fools, noise, to_boundary, votes
from adamant.attacks.pictures import cosines, transformed
from adamant.batch import Rows, Shared, per_row, where
from adamant.desk import Problem
from adamant.errors import InputError
from adamant.losses import Loss
from adamant.random import Rng
from adamant.threats import L2, Linf, Normed

_WIDEN = 16  # times that a step is doubled until it fools


@final
@dataclass(frozen=True, kw_only=True)
class GeoDA:
    """From the input along an estimated normal of the boundary, taken for flat, up to the boundary, and again.

    Rahmati et al., 2020, arXiv:2003.06468. Of pictures, the queries for a normal go along slow cosine waves. Every
    normal takes ratio^(-2/3) times as many as the last, the paper's optimal share of a fixed number of labels, and the
    estimates add up, query by query. A step asks some 10 labels more on its way to the boundary.
    """

    steps: int = 10
    queries: int = 60  # for the first normal; in all 60, 260, 660, 2100 and 4300 after 1, 3, 5, 8 and 10 steps
    ratio: float = 0.6  # by which the error of a step shrinks that of the last; 1: as many queries for each normal
    most: int = 10_000  # queries for a normal
    around: float = 0.003  # spread of the queries along each wave, in widths of the box
    low: float | None = 0.5  # the share of each axis' frequencies, the lowest (of 224 pixels 1/3); None: white noise
    tries: int = 100  # to find a first success in noise
    examples: Shared | None = None  # inputs to start from; needed where a target is given
    loss: ClassVar[Loss] = VERDICT
    needs: ClassVar[Sight] = Sight.LABELS
    minimal: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (L2, Linf)

    @dataclass(frozen=True)
    class State(Rows):
        """A success at the boundary, the sum of the estimated normals, and rows that never had a success."""

        z: Tensor
        normal: Tensor
        done: Tensor

    def init(self, p: Problem) -> State:
        if self.low is not None and not 0 < self.low <= 1:
            raise InputError(f"low is a share of the frequencies, above 0 and at most 1, got {self.low}.")
        if not 0 < self.ratio <= 1:
            raise InputError(f"ratio is above 0 and at most 1, got {self.ratio}.")
        z, found = begin(p, self.examples, self.tries)
        z = to_boundary(p, z, self.around / (4 * math.sqrt(p.x[0].numel())), found)
        return self.State(z, torch.zeros_like(z), ~found)

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        assert isinstance(p.threat, Normed)
        normal = s.normal + self._normal(p, s.z, t)
        return self.State(self._along(p, s.z, p.threat.steepest(normal), ~s.done), normal, s.done)

    def count(self, t: int) -> int:
        """How many queries the normal of step t takes."""
        return min(self.most, round(self.queries * self.ratio ** (-2 * t / 3)))

    def _normal(self, p: Problem, z: Inputs, t: int) -> Tensor:
        """The sum of random directions, each with the sign of its label."""
        radius, signed, rng = self.around * p.threat.width, torch.zeros_like(z), p.rng.fold("normal").fold(t)

        def draw(rng: Rng, k: int) -> Tensor:
            return noise(p, rng, k) if p.x.ndim != 4 or self.low is None else _waves(p, rng, k, self.low)

        for _, there, sign in votes(p, rng, self.count(t), draw, lambda u: p.threat.clip(z + radius * u)):
            signed = signed + per_row(sign, z) * (there - z) / radius
        return signed

    def _along(self, p: Problem, z: Inputs, v: Tensor, rows: Mask) -> Inputs:
        """From the input along v as far as the boundary; z where there is none on the way."""
        far, open_ = p.threat.size(z, p.x).to(z), rows
        for _ in range(_WIDEN):
            if not bool(open_.any()):
                break
            there = p.threat.clip(p.x + per_row(far, v) * v)
            fooled = fools(p, there, open_)
            z, open_ = where(fooled, there, z), open_ & ~fooled
            far = torch.where(open_, 2 * far, far)
        # A change of one length crosses the boundary by up to so much more on Linf.
        narrow = self.around * p.threat.width / (4 * (math.sqrt(p.x[0].numel()) if isinstance(p.threat, Linf) else 1))
        narrow = (2 * torch.finfo(z.dtype).eps * far).clamp_min(narrow)
        return bisect(p, lambda r: p.threat.clip(p.x + per_row(r, v) * v), z, far, narrow, rows & ~open_)[0]


def _waves(p: Problem, rng: Rng, k: int, low: float) -> Tensor:
    """Normal sums of the slowest waves of each axis, in every channel: (k, n, *d)."""
    channels, *sides = p.x.shape[1:]
    basis = [cosines(side, p.x.dtype, p.x.device)[: max(1, round(low * side))].T for side in sides]
    tone = rng.normal(k, channels, *(b.shape[1] for b in basis), dtype=p.x.dtype)
    return p.threat.free(transformed(tone, basis[0], basis[1]).transpose(0, 1))
