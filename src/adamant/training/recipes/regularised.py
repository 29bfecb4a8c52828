"""Penalties beside or instead of the adversarial loss."""

from __future__ import annotations

from collections.abc import Callable

from adamant import losses
from adamant.adversary import Attack
from adamant.attacks.gradient import PGD
from adamant.attacks.starts import Near
from adamant.training.average import Average
from adamant.training.inner import Stray
from adamant.training.knobs import Constant, Knob
from adamant.training.outer import CE, Divergence, Sum, Times
from adamant.training.recipes.base import Recipe, not_negative
from adamant.training.weights import Weights


def trades(
    *,
    beta: float = 6.0,
    attack: Attack = PGD(steps=10, rate=0.25, start=Near(0.001), loss=losses.KL()),
    weights: Weights | None = None,
    average: Average | None = None,
    eps: Knob = Constant(),
) -> Recipe:
    """Clean loss + beta x how far the answer strays (Zhang et al., 2019); beta buys robust with clean accuracy."""
    not_negative("beta", beta)
    return Recipe(
        name="trades",
        source="Zhang et al., 2019, arXiv:1901.08573",
        inner=Stray(attack),
        outer=Sum(CE("clean"), Times(beta, Divergence("clean", "adv"))),
        weights=weights,
        average=average,
        eps=eps,
    )


CATALOGUE: tuple[Callable[..., Recipe], ...] = (trades,)
