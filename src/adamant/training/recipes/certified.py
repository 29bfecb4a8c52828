"""Certified training: the loss at what bounds allow, instead of or beside what an attack finds."""

from __future__ import annotations

from collections.abc import Callable

from adamant.adversary import Attack
from adamant.attacks.gradient import PGD
from adamant.bounds import Intervals, Lines
from adamant.runtime.average import Average
from adamant.runtime.knobs import Constant, Knob, Ramp
from adamant.training.bounded import Blend, Guarantee
from adamant.training.inner import Ascend, Keep
from adamant.training.outer import CE
from adamant.training.recipes.base import Recipe, share_of


def ibp(
    *,
    kappa: Knob = Ramp(until=0.5, low=1.0, high=0.5),
    average: Average | None = None,
    eps: Knob = Ramp(until=0.5),
) -> Recipe:
    """kappa x clean loss + the rest x loss at the worst logits by interval bounds (Gowal et al., 2018).

    Begin with `bounds.initialise_for_bounds(model)`, as the command line does, and cut long gradients, `clip=10.0`.
    A model on this way for 0.3 is often trained for more: eps=Ramp(until=0.5, high=1.2).
    """
    return Recipe(
        name="ibp",
        source="Gowal et al., 2018, arXiv:1810.12715",
        inner=Keep(),
        outer=Blend(CE("clean"), Guarantee(), kappa),
        average=average,
        eps=eps,
    )


def crown_ibp(
    *,
    kappa: Knob = Ramp(until=0.6, low=1.0, high=0.5),
    beta: Knob = Ramp(until=0.6),
    average: Average | None = None,
    eps: Knob = Ramp(until=0.6),
) -> Recipe:
    """As ibp, from bounds by lines, which pass into intervals as beta goes from 0 to 1 (Zhang et al., 2020)."""
    return Recipe(
        name="crown_ibp",
        source="Zhang et al., 2020, arXiv:1906.06316",
        inner=Keep(),
        outer=Blend(CE("clean"), Guarantee(Lines(), toward=Intervals(), by=beta), kappa),
        average=average,
        eps=eps,
    )


def sabr(
    *,
    share: float = 0.4,
    attack: Attack = PGD(steps=8, rate=0.25),
    average: Average | None = None,
    eps: Knob = Ramp(until=0.5),
) -> Recipe:
    """Interval bounds of a small box, a share of the budget, around the point of an attack (Mueller et al., 2023)."""
    share_of("share", share)
    return Recipe(
        name="sabr",
        source="Mueller et al., 2023, arXiv:2210.04871",
        inner=Ascend(attack),
        outer=Guarantee(around="adv", share=share),
        average=average,
        eps=eps,
    )


def mtl_ibp(
    *,
    alpha: float = 0.5,
    attack: Attack = PGD(steps=1, rate=2.0),
    average: Average | None = None,
    eps: Knob = Ramp(until=0.5),
) -> Recipe:
    """The share alpha of the interval loss, the rest of the adversarial loss (De Palma et al., 2024).

    One knob from adversarial (0) to certified training (1). Batch statistics are those of the adversarial view.
    """
    share_of("alpha", alpha)
    return Recipe(
        name="mtl_ibp",
        source="De Palma et al., 2024, arXiv:2307.13586",
        inner=Ascend(attack),
        outer=Blend(CE("adv"), Guarantee(point="adv"), Constant(1 - alpha)),
        average=average,
        eps=eps,
    )


CATALOGUE: tuple[Callable[..., Recipe], ...] = (ibp, crown_ibp, sabr, mtl_ibp)
