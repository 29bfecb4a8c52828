"""Recipes: what each training step makes and minimises. A recipe is a value; these functions write the known ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from adamant.adversary import Attack
from adamant.attacks.gradient import FGSM, PGD
from adamant.errors import InputError
from adamant.training.average import EMA
from adamant.training.inner import Ascend, Inner, Keep, Pool
from adamant.training.knobs import Constant, Knob
from adamant.training.outer import CE, Balanced, Outer, Sum, Times
from adamant.values import brief


@final
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """inner (who points) x outer (what is minimised) x average x the schedule of the budget."""

    name: str
    source: str
    inner: Inner
    outer: Outer
    average: EMA | None = None
    eps: Knob = Constant()  # multiplies the budget during training

    @property
    def cost(self) -> int:
        """Forward-equivalents per step and row: forward 1, backward by input 1, backward by weights 1 more."""
        return self.inner.cost + 3 * len(self.outer.views)

    @property
    def formula(self) -> str:
        """What is minimised, in one line."""
        return f"minimise mean[ {self.outer} ]"

    def explain(self) -> str:
        """Formula, source and cost, for a person."""
        average = f"; evaluated and saved as {self.average}" if self.average else ""
        return (
            f"{self.name}: {self.formula}, views from {brief(self.inner)}{average}. {self.source}. "
            f"Costs {self.cost} forwards per row and step ({self.cost / 3:.1f} times ordinary training)."
        )


def standard(*, average: EMA | None = None) -> Recipe:
    """Ordinary training: the clean loss alone."""
    return Recipe(
        name="standard", source="Ordinary risk minimisation", inner=Keep(), outer=CE("clean"), average=average
    )


def augmented(*, attack: Attack = FGSM(), keep: int = 3, average: EMA | None = None) -> Recipe:
    """Adversarial examples join the training set, generation after generation (Szegedy et al., 2014)."""
    return Recipe(
        name="augmented",
        source="Szegedy et al., 2014, arXiv:1312.6199; Goodfellow et al., 2015, arXiv:1412.6572",
        inner=Pool(attack, keep),
        outer=Sum(Times(0.5, CE("clean")), Times(0.5, CE("adv"))),
        average=average,
    )


def mixed(
    *,
    lam: float = 1.0,
    adaptive: float | None = None,
    attack: Attack = FGSM(),
    average: EMA | None = None,
    eps: Knob = Constant(),
) -> Recipe:
    """Clean loss + lam x adversarial loss (Goodfellow et al., 2015); `adaptive` fixes the share of the second."""
    if adaptive is not None and not 0 < adaptive < 1:
        raise InputError(f"adaptive is the adversarial share of the loss, between 0 and 1, got {adaptive}.")
    if lam < 0:
        raise InputError(f"lam must not be negative, got {lam}.")
    clean, adv = CE("clean"), CE("adv")
    return Recipe(
        name="mixed",
        source="Goodfellow et al., 2015, arXiv:1412.6572",
        inner=Ascend(attack),
        outer=Sum(clean, Times(lam, adv)) if adaptive is None else Balanced(clean, adv, adaptive),
        average=average,
        eps=eps,
    )


def madry(*, attack: Attack = PGD(steps=10, rate=0.25), average: EMA | None = None, eps: Knob = Constant()) -> Recipe:
    """Adversarial training: the loss at the worst point that the attack finds (Madry et al., 2018)."""
    return Recipe(
        name="madry",
        source="Madry et al., 2018, arXiv:1706.06083",
        inner=Ascend(attack),
        outer=CE("adv"),
        average=average,
        eps=eps,
    )


CATALOGUE: tuple[Callable[..., Recipe], ...] = (standard, augmented, mixed, madry)
