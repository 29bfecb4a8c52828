"""Attacks that follow the gradient with a fixed budget, from FGSM and PGD to momentum, Adam and Frank-Wolfe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Inputs, Scores
from adamant.access import Look, Sight
from adamant.attacks.starts import Anywhere, Here, Start
from adamant.batch import Rows, per_row
from adamant.desk import Problem
from adamant.losses import CrossEntropy, Loss
from adamant.threats import L1, L2, Linf


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
    threats: ClassVar[tuple[type, ...]] = (Linf, L2, L1)

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


def gather(m: Inputs, g: Inputs, decay: float) -> Inputs:
    """Momentum over gradients whose entries are one on average; where the gradient is zero it keeps its direction."""
    return decay * m + g / per_row(g.flatten(1).abs().mean(1).clamp_min(torch.finfo(g.dtype).tiny), g)


def ahead(p: Problem, m: Inputs, rate: float) -> Inputs:
    """The step that the momentum would take unsigned; a step of ones in every entry is one of the whole rate."""
    ones = p.threat.size(p.threat.free(torch.ones_like(m)), torch.zeros_like(m)).to(m).clamp_min(1.0)
    return per_row(rate * p.threat.budget(p.x) / ones, m) * m


@final
@dataclass(frozen=True, kw_only=True)
class MIFGSM:
    """BIM with momentum over gradients of equal L1 length (Dong et al., 2018, arXiv:1710.06081)."""

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
        m = gather(s.m, seen.slope, self.decay)
        return self.State(climb(p, s.z, m, self.rate), m)


@final
@dataclass(frozen=True, kw_only=True)
class NIFGSM:
    """MIFGSM that looks where its momentum is about to carry it (Lin et al., 2020, arXiv:1908.06281)."""

    steps: int = 10
    rate: float = 0.1  # of the budget, per step
    decay: float = 1.0
    start: Start = Here()
    loss: Loss = CrossEntropy()
    needs: ClassVar[Sight] = Sight.GRADIENT
    threats: ClassVar[tuple[type, ...]] = (Linf, L2, L1)

    @dataclass(frozen=True)
    class State(Rows):
        """Where to look, where it is, and the momentum."""

        z: Tensor
        at: Tensor
        m: Tensor

    def init(self, p: Problem) -> State:
        z = self.start(p)
        return self.State(z, z, torch.zeros_like(z))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        m = gather(s.m, seen.slope, self.decay)
        at = climb(p, s.at, m, self.rate)
        if t == self.steps - 1:
            return self.State(at, at, m)
        return self.State(p.project(at + ahead(p, m, self.rate * self.decay)), at, m)


@final
@dataclass(frozen=True, kw_only=True)
class AdamPGD:
    """PGD with the steps of Adam (Kingma & Ba, 2015, arXiv:1412.6980), as in Uesato et al., 2018, arXiv:1802.05666.

    Within Linf: each entry at its own scale is steepest ascent there and nowhere else.
    """

    steps: int = 40
    rate: float = 0.1  # of the budget, the step of an entry whose gradient does not change
    keep: tuple[float, float] = (0.9, 0.999)  # the share of the first and of the second moment that a step keeps
    start: Start = Anywhere()
    loss: Loss = CrossEntropy()
    needs: ClassVar[Sight] = Sight.GRADIENT
    threats: ClassVar[tuple[type, ...]] = (Linf,)

    @dataclass(frozen=True)
    class State(Rows):
        """Where it is, and the two moments."""

        z: Tensor
        m: Tensor
        v: Tensor

    def init(self, p: Problem) -> State:
        return self.State(self.start(p), torch.zeros_like(p.x), torch.zeros_like(p.x))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        (a, b), g = self.keep, seen.slope
        m, v = a * s.m + (1 - a) * g, b * s.v + (1 - b) * g * g
        # The floor only keeps squares that underflow from dividing by zero: no unit of the loss is small here.
        deviation = (v / (1 - b ** (t + 1))).sqrt().clamp_min(torch.finfo(g.dtype).tiny ** 0.5)
        length = per_row(self.rate * p.threat.budget(p.x), g)
        return self.State(p.project(s.z + length * m / (1 - a ** (t + 1)) / deviation), m, v)


@final
@dataclass(frozen=True, kw_only=True)
class FrankWolfe:
    """A step of the way to the member of the threat model that gains most along the momentum of the gradients.

    Chen et al., 2020, arXiv:1811.10828.
    """

    steps: int = 40
    rate: float = 0.1  # of the way
    decay: float = 0.9
    start: Start = Here()
    loss: Loss = CrossEntropy()
    needs: ClassVar[Sight] = Sight.GRADIENT
    threats: ClassVar[tuple[type, ...]] = (Linf, L2, L1)

    @dataclass(frozen=True)
    class State(Rows):
        """Where it is, and the momentum."""

        z: Tensor
        m: Tensor

    def init(self, p: Problem) -> State:
        return self.State(self.start(p), torch.zeros_like(p.x))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        m = self.decay * s.m + (1 - self.decay) * seen.slope if t else seen.slope
        return self.State(p.project(s.z + self.rate * (_farthest(p, m) - s.z)), m)


def _farthest(p: Problem, g: Inputs) -> Inputs:
    """The member that gains most along g: in a convex set, where a point far off in that direction is projected to."""
    largest = g.flatten(1).abs().amax(1).clamp_min(torch.finfo(g.dtype).tiny)
    return p.project(p.x + g / per_row(largest, g) * per_row(1e4 * p.threat.budget(p.x), g))
