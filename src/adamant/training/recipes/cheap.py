"""Adversarial training for the price of one step, watched for catastrophic overfitting."""

from __future__ import annotations

from collections.abc import Callable

from adamant.attacks.gradient import PGD
from adamant.training.average import Average
from adamant.training.guards import Collapse, Guard
from adamant.training.inner import Ascend
from adamant.training.knobs import Constant, Knob
from adamant.training.outer import CE
from adamant.training.recipes.base import Recipe


def fast(
    *,
    rate: float = 1.25,
    average: Average | None = None,
    eps: Knob = Constant(),
    guard: Guard | None = Collapse(),
) -> Recipe:
    """One step from a random start (Wong et al., 2020), watched for catastrophic overfitting."""
    return Recipe(
        name="fast",
        source="Wong et al., 2020, arXiv:2001.03994",
        inner=Ascend(PGD(steps=1, rate=rate)),
        outer=CE("adv"),
        average=average,
        eps=eps,
        guard=guard,
    )


CATALOGUE: tuple[Callable[..., Recipe], ...] = (fast,)
