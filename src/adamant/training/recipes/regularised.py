"""Penalties beside or instead of the adversarial loss: what the model says of two views is held together."""

from __future__ import annotations

from collections.abc import Callable

from adamant import losses
from adamant.adversary import Attack
from adamant.attacks.gradient import PGD
from adamant.attacks.starts import Near
from adamant.errors import InputError
from adamant.runtime.average import Average
from adamant.runtime.knobs import Constant, Knob
from adamant.training.inner import Ascend, Stray
from adamant.training.outer import CE, Divergence, Squared, Sum, Times
from adamant.training.pairs import Boosted, Doubted
from adamant.training.recipes.base import Recipe, not_negative
from adamant.training.teacher import Depart, Taught, Teacher
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


def mart(
    *,
    lam: float = 5.0,
    attack: Attack = PGD(steps=10, rate=0.25, start=Near(0.001)),
    weights: Weights | None = None,
    average: Average | None = None,
    eps: Knob = Constant(),
) -> Recipe:
    """Boosted adversarial loss + lam x divergence, most for rows that are wrong already (Wang et al., 2020)."""
    not_negative("lam", lam)
    return Recipe(
        name="mart",
        source="Wang et al., 2020, openreview.net/forum?id=rklOg6EFwS",
        inner=Ascend(attack),
        outer=Sum(Boosted("adv"), Times(lam, Doubted("clean", "adv"))),
        weights=weights,
        average=average,
        eps=eps,
    )


def alp(
    *,
    lam: float = 0.5,
    attack: Attack = PGD(steps=10, rate=0.25),
    weights: Weights | None = None,
    average: Average | None = None,
    eps: Knob = Constant(),
) -> Recipe:
    """Adversarial loss + lam x squared distance of the logits of the pair (Kannan et al., 2018).

    Warning: the robustness first claimed for it on ImageNet was broken (Engstrom et al., 2018, arXiv:1807.10272), as
    it hides gradients. Judge what it trains by a suite, never by PGD alone.
    """
    not_negative("lam", lam)
    return Recipe(
        name="alp",
        source="Kannan et al., 2018, arXiv:1803.06373; broken as first claimed: arXiv:1807.10272",
        inner=Ascend(attack),
        outer=Sum(CE("adv"), Times(lam, Squared("clean", "adv"))),
        weights=weights,
        average=average,
        eps=eps,
    )


def distilled(
    *,
    teacher: Teacher = Teacher(),
    share: float = 5 / 6,
    temperature: float = 1.0,
    attack: Attack = PGD(steps=10, rate=0.25, start=Near(0.001), loss=losses.KL()),
    weights: Weights | None = None,
    average: Average | None = None,
    eps: Knob = Constant(),
) -> Recipe:
    """What a robust teacher says of the clean input, learnt on both views (RSLAD: Zi et al., 2021); uses no label.

    `share` is that of the adversarial view. With an attack that climbs the loss of the label instead of `KL()`, the
    inner part is that of ARD (Goldblum et al., 2020, arXiv:1905.09747).
    """
    if not 0 <= share <= 1:
        raise InputError(f"share is that of the adversarial view in the loss, from 0 to 1, got {share}.")
    if not temperature > 0:
        raise InputError(f"temperature must be positive, got {temperature}.")
    own = isinstance(getattr(attack, "loss", None), losses.KL)
    return Recipe(
        name="distilled",
        source="Zi et al., 2021, arXiv:2108.07969",
        inner=Depart(attack, teacher) if own else Ascend(attack),
        outer=Sum(
            Times(share, Taught("adv", teacher, temperature)),
            Times(1 - share, Taught("clean", teacher, temperature)),
        ),
        weights=weights,
        average=average,
        eps=eps,
    )


CATALOGUE: tuple[Callable[..., Recipe], ...] = (trades, mart, alp, distilled)
