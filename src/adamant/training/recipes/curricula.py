"""Strength that rises over the run, or follows each row."""

from __future__ import annotations

from collections.abc import Callable

from adamant.adversary import Attack
from adamant.attacks.gradient import PGD
from adamant.errors import InputError
from adamant.runtime.average import Average
from adamant.runtime.knobs import Constant, Knob, Ramp
from adamant.training.inner import Ascend, Stages
from adamant.training.outer import CE, Sum, Times
from adamant.training.paced import AtMargin, Early, OwnBudget
from adamant.training.recipes.base import Recipe
from adamant.training.terms import Hinged


def curriculum(
    *,
    steps: tuple[int, ...] = (1, 2, 4, 8),
    until: float = 0.6,
    low: float = 0.1,
    length: float = 2.5,
    average: Average | None = None,
) -> Recipe:
    """Attacks of more and more steps within a budget that grows, both until a share of the run (Cai et al., 2018).

    `low` is the share of the budget at the beginning, `length` the path of an attack in budgets, of at most 1.25 each.
    """
    if not steps or min(steps) < 1 or not 0 < until <= 1 or not 0 <= low <= 1 or not length > 0:
        raise InputError(
            f"A curriculum has stages of at least one step, and shares up to 1; got steps={steps}, until={until}, "
            f"low={low}, length={length}."
        )
    ends = (*(until * (i + 1) / len(steps) for i in range(len(steps) - 1)), 1.0)
    stages = tuple((e, Ascend(PGD(steps=k, rate=min(1.25, length / k)))) for e, k in zip(ends, steps, strict=True))
    return Recipe(
        name="curriculum",
        source="Cai et al., 2018, arXiv:1805.04807; the budget as in Gowal et al., 2018, arXiv:1810.12715",
        inner=Stages(stages),
        outer=CE("adv"),
        average=average,
        eps=Ramp(until=until, low=low),
    )


def fat(
    *,
    steps: int = 10,
    rate: float = 0.25,
    after: tuple[int, ...] = (0, 1, 2),
    average: Average | None = None,
    eps: Knob = Constant(),
) -> Recipe:
    """The loss where an attack stops, some steps after the row first fell (friendly training, Zhang et al., 2020)."""
    return Recipe(
        name="fat",
        source="Zhang et al., 2020, arXiv:2002.11242",
        inner=Early(steps=steps, rate=rate, after=after),
        outer=CE("adv"),
        average=average,
        eps=eps,
    )


def iaat(
    *,
    attack: Attack = PGD(steps=10, rate=0.25),
    grow: float = 0.1,
    low: float = 0.0,
    high: float = 1.5,
    average: Average | None = None,
    eps: Knob = Constant(),
) -> Recipe:
    """Each row within a budget of its own, which grows where it stands and shrinks where not (Balaji et al., 2019)."""
    return Recipe(
        name="iaat",
        source="Balaji et al., 2019, arXiv:1910.08051",
        inner=OwnBudget(attack=attack, grow=grow, low=low, high=high),
        outer=CE("adv"),
        average=average,
        eps=eps,
    )


def mma(
    *,
    attack: Attack = PGD(steps=10, rate=0.25),
    far: float = 1.5,
    rounds: int = 6,
    clean: float = 1 / 3,
    average: Average | None = None,
    eps: Knob = Constant(),
) -> Recipe:
    """Each row at its own margin, as long as that is below `far` budgets, and a share of the clean loss (MMA, 2020)."""
    if not 0 <= clean < 1:
        raise InputError(f"clean is the share of the clean loss, from 0 to below 1, got {clean}.")
    return Recipe(
        name="mma",
        source="Ding et al., 2020, arXiv:1812.02637",
        inner=AtMargin(attack=attack, far=far, rounds=rounds),
        outer=Sum(Times(clean, CE("clean")), Times(1 - clean, Hinged("adv"))),
        average=average,
        eps=eps,
    )


CATALOGUE: tuple[Callable[..., Recipe], ...] = (curriculum, fat, iaat, mma)
