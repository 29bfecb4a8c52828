"""Smoother models: penalties on slopes, curves and sudden answers, cheaper than an attack or without labels."""

from __future__ import annotations

from collections.abc import Callable

from adamant.attacks.gradient import PGD
from adamant.attacks.starts import Here
from adamant.errors import InputError
from adamant.runtime.average import Average
from adamant.runtime.knobs import Constant, Knob, Ramp
from adamant.training.inner import Ascend, Keep
from adamant.training.outer import CE, Sum, Times
from adamant.training.pairs import Steady
from adamant.training.recipes.base import Recipe, not_negative
from adamant.training.slopes import Bend, Curved, Plane, Sensitivity, Steepness
from adamant.training.virtual import Virtual
from adamant.training.weights import Weights


def gradient_penalty(*, lam: float = 1.0, weights: Weights | None = None, average: Average | None = None) -> Recipe:
    """Clean loss + lam x squared length of its gradient by the input (Ross & Doshi-Velez, 2018)."""
    not_negative("lam", lam)
    return Recipe(
        name="gradient_penalty",
        source="Ross & Doshi-Velez, 2018, arXiv:1711.09404",
        inner=Keep(),
        outer=Sum(CE("clean"), Times(lam, Steepness("clean"))),
        weights=weights,
        average=average,
    )


def jacobian(
    *,
    lam: float = 0.01,
    projections: int = 1,
    weights: Weights | None = None,
    average: Average | None = None,
) -> Recipe:
    """Clean loss + lam / 2 x squared norm of the Jacobian of the logits, by projections (Hoffman et al., 2019)."""
    not_negative("lam", lam)
    if projections < 1:
        raise InputError(f"projections is how many random directions are taken, at least 1, got {projections}.")
    return Recipe(
        name="jacobian",
        source="Hoffman et al., 2019, arXiv:1908.02729",
        inner=Keep(),
        outer=Sum(CE("clean"), Times(lam, Sensitivity("clean", projections))),
        weights=weights,
        average=average,
    )


def llr(
    *,
    bend: float = 4.0,
    rise: float = 3.0,
    steps: int = 2,
    rate: float = 0.5,
    weights: Weights | None = None,
    average: Average | None = None,
    eps: Knob = Constant(),
) -> Recipe:
    """Clean loss + how far from a plane the loss is where it is furthest, and how far that rises (Qin et al., 2019)."""
    not_negative("bend", bend)
    not_negative("rise", rise)
    return Recipe(
        name="llr",
        source="Qin et al., 2019, arXiv:1907.02610",
        inner=Bend(steps, rate),
        outer=Sum(CE("clean"), Plane("clean", "adv", bend, rise)),
        weights=weights,
        average=average,
        eps=eps,
    )


def cure(
    *,
    lam: float = 4.0,
    reach: float = 0.86,
    weights: Weights | None = None,
    average: Average | None = None,
    eps: Knob = Ramp(until=0.25),
) -> Recipe:
    """Clean loss + lam x squared change of its gradient along the steepest step (Moosavi-Dezfooli et al., 2019).

    `reach` is the length of that step in budgets: 1.5 in L2, as in the paper, is 0.86 of 8/255 on CIFAR-10. The step
    stays in the box, and the paper's does not.
    """
    not_negative("lam", lam)
    if not 0 < reach <= 1:
        raise InputError(f"reach is a step within the budget, as a share of it from above 0 to 1, got {reach}.")
    return Recipe(
        name="cure",
        source="Moosavi-Dezfooli et al., 2019, arXiv:1811.09716",
        inner=Ascend(PGD(steps=1, rate=reach, start=Here()), "ahead"),
        outer=Sum(CE("clean"), Times(lam, Curved("clean", "ahead"))),
        weights=weights,
        average=average,
        eps=eps,
    )


def vat(
    *,
    alpha: float = 1.0,
    steps: int = 1,
    hair: float = 0.01,
    weights: Weights | None = None,
    average: Average | None = None,
    eps: Knob = Constant(),
) -> Recipe:
    """Clean loss + alpha x how far the answer changes where it changes most (Miyato et al., 2018).

    Uses rows without a label, too: extra rows of label -1 have no clean loss, and the second term.
    """
    not_negative("alpha", alpha)
    if steps < 1 or not hair > 0:
        raise InputError(f"vat needs at least one step and a hair above 0, got {steps} and {hair}.")
    return Recipe(
        name="vat",
        source="Miyato et al., 2018, arXiv:1704.03976",
        inner=Virtual(steps, hair),
        outer=Sum(CE("clean"), Times(alpha, Steady("clean", "adv"))),
        weights=weights,
        average=average,
        eps=eps,
    )


CATALOGUE: tuple[Callable[..., Recipe], ...] = (gradient_penalty, jacobian, llr, cure, vat)
