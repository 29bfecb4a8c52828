"""Attacks that follow the gradient with a fixed budget: FGSM, RFGSM, FGM, BIM, PGD, MIFGSM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Inputs, Scores
from adamant.access import Look, Sight
from adamant.attacks.starts import Anywhere, Here, Start
from adamant.batch import Rows, per_row
from adamant.engine import Problem
from adamant.losses import CrossEntropy, Loss


@dataclass(frozen=True)
class At(Rows):
    """The whole state of an attack that remembers only where it is."""

    z: Tensor


def climb(p: Problem, z: Inputs, g: Inputs, rate: Scores | float) -> Inputs:
    """A step of steepest ascent, and back into the threat model."""
    return p.project(p.threat.move(z, g, rate))


@final
@dataclass(frozen=True, kw_only=True)
class FGSM:
    """One step of the whole budget (Goodfellow et al., 2015, arXiv:1412.6572), in the geometry of the threat model."""

    loss: Loss = CrossEntropy()
    needs: ClassVar[Sight] = Sight.GRADIENT

    @property
    def steps(self) -> int:
        return 1

    def init(self, p: Problem) -> At:
        return At(p.x)

    def step(self, p: Problem, s: At, seen: Look, t: int) -> At:
        return At(climb(p, s.z, seen.slope, 1.0))


@final
@dataclass(frozen=True, kw_only=True)
class RFGSM:
    """A random step of part of the budget, then a gradient step of the rest (Tramèr et al., 2018, arXiv:1705.07204)."""

    share: float = 0.5  # of the budget, spent at random
    loss: Loss = CrossEntropy()
    needs: ClassVar[Sight] = Sight.GRADIENT

    @property
    def steps(self) -> int:
        return 1

    def init(self, p: Problem) -> At:
        noise = p.rng.fold("start").normal(*p.x.shape[1:], dtype=p.x.dtype)
        return At(climb(p, p.x, noise, self.share))

    def step(self, p: Problem, s: At, seen: Look, t: int) -> At:
        return At(climb(p, s.z, seen.slope, 1.0 - self.share))


@final
@dataclass(frozen=True, kw_only=True)
class FGM:
    """The plain gradient step: along the gradient itself, not its sign, out to the edge of the budget.

    Goodfellow et al., 2015, arXiv:1412.6572, section 4, without the sign; on L2 it is the same as FGSM.
    """

    loss: Loss = CrossEntropy()
    needs: ClassVar[Sight] = Sight.GRADIENT

    @property
    def steps(self) -> int:
        return 1

    def init(self, p: Problem) -> At:
        return At(p.x)

    def step(self, p: Problem, s: At, seen: Look, t: int) -> At:
        # A norm is homogeneous: the size of the unit gradient tells how far to go. The first scaling keeps tiny
        # gradients from vanishing when they are added to x.
        g = seen.slope / per_row(seen.slope.flatten(1).abs().amax(1).clamp_min(torch.finfo(s.z.dtype).tiny), s.z)
        length = p.threat.size(g, torch.zeros_like(g)).to(g).clamp_min(torch.finfo(g.dtype).tiny)
        return At(p.threat.project(s.z + g * per_row(p.threat.budget(s.z) / length, g), p.x))


@final
@dataclass(frozen=True, kw_only=True)
class BIM:
    """FGSM in small steps (Kurakin et al., 2017, arXiv:1607.02533)."""

    steps: int = 10
    rate: float = 0.1  # of the budget, per step
    loss: Loss = CrossEntropy()
    needs: ClassVar[Sight] = Sight.GRADIENT

    def init(self, p: Problem) -> At:
        return At(p.x)

    def step(self, p: Problem, s: At, seen: Look, t: int) -> At:
        return At(climb(p, s.z, seen.slope, self.rate))


@final
@dataclass(frozen=True, kw_only=True)
class PGD:
    """Projected gradient ascent from a random start (Madry et al., 2018, arXiv:1706.06083)."""

    steps: int = 40
    rate: float = 0.1  # of the budget, per step
    start: Start = Anywhere()
    loss: Loss = CrossEntropy()
    needs: ClassVar[Sight] = Sight.GRADIENT

    def init(self, p: Problem) -> At:
        return At(self.start(p))

    def step(self, p: Problem, s: At, seen: Look, t: int) -> At:
        return At(climb(p, s.z, seen.slope, self.rate))


@final
@dataclass(frozen=True, kw_only=True)
class MIFGSM:
    """BIM with momentum over gradients at unit L1 length (Dong et al., 2018, arXiv:1710.06081)."""

    steps: int = 10
    rate: float = 0.1  # of the budget, per step
    decay: float = 1.0
    start: Start = Here()
    loss: Loss = CrossEntropy()
    needs: ClassVar[Sight] = Sight.GRADIENT

    @dataclass(frozen=True)
    class State(Rows):
        """Where it is, and the momentum."""

        z: Tensor
        m: Tensor

    def init(self, p: Problem) -> State:
        return self.State(self.start(p), torch.zeros_like(p.x))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        g = seen.slope
        # The paper divides by the L1 norm; where the gradient is zero the momentum is left as it is.
        m = self.decay * s.m + g / per_row(g.flatten(1).abs().sum(1).clamp_min(torch.finfo(g.dtype).tiny), g)
        return self.State(climb(p, s.z, m, self.rate), m)
