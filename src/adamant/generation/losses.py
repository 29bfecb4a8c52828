"""What the two players of a GAN minimise, and what keeps the discriminator from running away.

A discriminator's logit is large where it takes a row for real. Each member says its formula, with D for that logit,
x for a row of the data, x' for a made one and sp(t) = log(1 + exp t), and where it comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, final, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from adamant.batch import per_row
from adamant.errors import InputError
from adamant.random import Rng

Critic = Callable[[Tensor], Tensor]  # inputs (n *d) to logits (n,)


@runtime_checkable
class Loss(Protocol):
    """Of logits (n,) for real and for made rows, each player's mean loss."""

    formula: ClassVar[str]
    source: ClassVar[str]
    paired: ClassVar[bool]  # whether the generator's loss looks at the real rows

    def discriminator(self, real: Tensor, made: Tensor) -> Tensor: ...

    def generator(self, real: Tensor, made: Tensor) -> Tensor: ...


@final
@dataclass(frozen=True)
class NonSaturating:
    """The first GAN, with the generator's loss turned so that its slope does not vanish."""

    formula: ClassVar[str] = "D: sp(-D(x)) + sp(D(x')); G: sp(-D(x'))"
    source: ClassVar[str] = "Goodfellow et al., 2014, arXiv:1406.2661"
    paired: ClassVar[bool] = False

    def discriminator(self, real: Tensor, made: Tensor) -> Tensor:
        return (F.softplus(-real) + F.softplus(made)).mean()

    def generator(self, real: Tensor, made: Tensor) -> Tensor:
        return F.softplus(-made).mean()


@final
@dataclass(frozen=True)
class Hinge:
    """Only rows within the margin teach the discriminator."""

    formula: ClassVar[str] = "D: relu(1 - D(x)) + relu(1 + D(x')); G: -D(x')"
    source: ClassVar[str] = "Lim & Ye, 2017, arXiv:1705.02894"
    paired: ClassVar[bool] = False

    def discriminator(self, real: Tensor, made: Tensor) -> Tensor:
        return (F.relu(1 - real) + F.relu(1 + made)).mean()

    def generator(self, real: Tensor, made: Tensor) -> Tensor:
        return -made.mean()


@final
@dataclass(frozen=True)
class Wasserstein:
    """The difference of means, a distance where the discriminator's slope is bounded: give it GradientPenalty."""

    formula: ClassVar[str] = "D: D(x') - D(x); G: -D(x')"
    source: ClassVar[str] = "Arjovsky et al., 2017, arXiv:1701.07875"
    paired: ClassVar[bool] = False

    def discriminator(self, real: Tensor, made: Tensor) -> Tensor:
        return (made - real).mean()

    def generator(self, real: Tensor, made: Tensor) -> Tensor:
        return -made.mean()


@final
@dataclass(frozen=True)
class Relativistic:
    """Each made row is compared with a real one: which of the pair is real?"""

    formula: ClassVar[str] = "D: sp(D(x') - D(x)); G: sp(D(x) - D(x'))"
    source: ClassVar[str] = "Jolicoeur-Martineau, 2018, arXiv:1807.00734; beside R1 and R2: Huang et al., 2501.05441"
    paired: ClassVar[bool] = True

    def discriminator(self, real: Tensor, made: Tensor) -> Tensor:
        return F.softplus(made - real).mean()

    def generator(self, real: Tensor, made: Tensor) -> Tensor:
        return F.softplus(real - made).mean()


@runtime_checkable
class Penalty(Protocol):
    """Of the discriminator's slope by its input; taken every so many steps, and as many times as heavy then."""

    formula: ClassVar[str]
    source: ClassVar[str]

    @property
    def every(self) -> int: ...

    def __call__(self, critic: Critic, real: Tensor, made: Tensor, rng: Rng) -> Tensor: ...


def squared_slopes(critic: Critic, x: Tensor) -> Tensor:
    """The squared L2 norm of the critic's gradient at each row (n,), which can be differentiated once more."""
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return slope.flatten(1).square().sum(1)


@final
@dataclass(frozen=True)
class R1:
    """Slopes at real rows are small, so that the game comes to rest (lazily: Karras et al., 2020, arXiv:1912.04958)."""

    formula: ClassVar[str] = "gamma / 2 * |grad D(x)|^2"
    source: ClassVar[str] = "Mescheder et al., 2018, arXiv:1801.04406"

    gamma: float = 0.1
    every: int = 8

    def __call__(self, critic: Critic, real: Tensor, made: Tensor, rng: Rng) -> Tensor:
        return self.gamma / 2 * squared_slopes(critic, real).mean()


@final
@dataclass(frozen=True)
class R2:
    """Slopes at made rows are small."""

    formula: ClassVar[str] = "gamma / 2 * |grad D(x')|^2"
    source: ClassVar[str] = "Mescheder et al., 2018, arXiv:1801.04406"

    gamma: float = 0.1
    every: int = 8

    def __call__(self, critic: Critic, real: Tensor, made: Tensor, rng: Rng) -> Tensor:
        return self.gamma / 2 * squared_slopes(critic, made).mean()


@final
@dataclass(frozen=True)
class GradientPenalty:
    """Slopes have length one between a real row and a made one."""

    formula: ClassVar[str] = "weight * (|grad D(a x + (1 - a) x')| - 1)^2, a uniform on [0, 1)"
    source: ClassVar[str] = "Gulrajani et al., 2017, arXiv:1704.00028"

    weight: float = 10.0
    every: int = 1

    def __call__(self, critic: Critic, real: Tensor, made: Tensor, rng: Rng) -> Tensor:
        share = per_row(rng.fold("between").uniform(1, dtype=real.dtype)[:, 0], real)
        slopes = squared_slopes(critic, made.detach().lerp(real, share)).clamp_min(1e-20).sqrt()
        return self.weight * (slopes - 1).square().mean()


def check(penalties: Sequence[Penalty]) -> None:
    """Raise InputError for a penalty that is never due."""
    for penalty in penalties:
        if penalty.every < 1:
            raise InputError(f"{penalty!r} is due every {penalty.every} steps: give a whole number from 1 on.")


LOSSES: tuple[type, ...] = (NonSaturating, Hinge, Wasserstein, Relativistic)
PENALTIES: tuple[type, ...] = (R1, R2, GradientPenalty)
