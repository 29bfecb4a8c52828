"""The classics: ordinary training, an augmented set, a mixed loss, the worst point."""

from __future__ import annotations

from collections.abc import Callable

from adamant.adversary import Attack
from adamant.attacks.gradient import FGSM, PGD
from adamant.errors import InputError
from adamant.runtime.average import Average
from adamant.runtime.knobs import Constant, Knob
from adamant.training.inner import Ascend, Keep, Pool
from adamant.training.outer import CE, Balanced, Sum, Times
from adamant.training.recipes.base import Recipe, not_negative
from adamant.training.weights import Weights


def standard(*, average: Average | None = None, smoothing: float = 0.0) -> Recipe:
    """Ordinary training: the clean loss alone."""
    return Recipe(
        name="standard",
        source="Ordinary risk minimisation",
        inner=Keep(),
        outer=CE("clean", smoothing),
        average=average,
    )


def augmented(*, attack: Attack = FGSM(), keep: int = 3, average: Average | None = None) -> Recipe:
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
    average: Average | None = None,
    eps: Knob = Constant(),
) -> Recipe:
    """Clean loss + lam x adversarial loss (Goodfellow et al., 2015); `adaptive` fixes the share of the second."""
    if adaptive is not None and not 0 < adaptive < 1:
        raise InputError(f"adaptive is the adversarial share of the loss, between 0 and 1, got {adaptive}.")
    not_negative("lam", lam)
    clean, adv = CE("clean"), CE("adv")
    return Recipe(
        name="mixed",
        source="Goodfellow et al., 2015, arXiv:1412.6572",
        inner=Ascend(attack),
        outer=Sum(clean, Times(lam, adv)) if adaptive is None else Balanced(clean, adv, adaptive),
        average=average,
        eps=eps,
    )


def madry(
    *,
    attack: Attack = PGD(steps=10, rate=0.25),
    smoothing: float = 0.0,
    weights: Weights | None = None,
    average: Average | None = None,
    eps: Knob = Constant(),
) -> Recipe:
    """Adversarial training: the loss at the worst point that the attack finds (Madry et al., 2018)."""
    return Recipe(
        name="madry",
        source="Madry et al., 2018, arXiv:1706.06083",
        inner=Ascend(attack),
        outer=CE("adv", smoothing),
        weights=weights,
        average=average,
        eps=eps,
    )


CATALOGUE: tuple[Callable[..., Recipe], ...] = (standard, augmented, mixed, madry)
