"""Several threat models at once; validation and the choice of the best checkpoint go by their union.

The threat model of the run does not matter to these recipes: they name their own. The default budgets are those of
MNIST (Tramèr & Boneh, 2019).
"""

from __future__ import annotations

from collections.abc import Callable

from adamant.adversary import Attack
from adamant.attacks.gradient import PGD
from adamant.errors import InputError
from adamant.runtime.average import Average
from adamant.runtime.knobs import Constant, Knob
from adamant.threats import L1, L2, Linf, Projectable
from adamant.training.inner import Ascend, Together, Under
from adamant.training.outer import CE, Sum, Times, Worst
from adamant.training.pairs import Paired
from adamant.training.parts import Inner
from adamant.training.recipes.base import Recipe, not_negative
from adamant.training.several import ByError, OneOf, Steepest
from adamant.training.views import Outer
from adamant.training.weights import Weights

THREE: tuple[Projectable, ...] = (Linf(0.3), L2(2.0), L1(10.0))
TWO: tuple[Projectable, ...] = (Linf(0.3), L1(10.0))
_TEN: Attack = PGD(steps=10, rate=0.25)


def _names(threats: tuple[Projectable, ...]) -> tuple[str, ...]:
    """A view for each threat model, by its name: linf, l2, and with a number where there are two of a kind."""
    if len(threats) < 2:
        raise InputError(f"This recipe is for several threat models, got {len(threats)}: with one, take madry().")
    kinds = [type(t).__name__.lower() for t in threats]
    return tuple(k if kinds.count(k) == 1 else f"{k}_{kinds[:i].count(k) + 1}" for i, k in enumerate(kinds))


def _each(threats: tuple[Projectable, ...], attack: Attack) -> Inner:
    views = zip(threats, _names(threats), strict=True)
    return Together(*(Under(threat, Ascend(attack, name)) for threat, name in views))


def _one(threats: tuple[Projectable, ...], attack: Attack) -> tuple[Inner, ...]:
    _names(threats)
    return tuple(Under(threat, Ascend(attack)) for threat in threats)


def average(
    *,
    threats: tuple[Projectable, ...] = THREE,
    attack: Attack = _TEN,
    weights: Weights | None = None,
    average: Average | None = None,
    eps: Knob = Constant(),
) -> Recipe:
    """The mean of the losses at the worst points of several threat models (Tramèr & Boneh, 2019)."""
    names = _names(threats)
    return Recipe(
        name="average",
        source="Tramèr & Boneh, 2019, arXiv:1904.13000",
        inner=_each(threats, attack),
        outer=Sum(*(Times(1 / len(names), CE(name)) for name in names)),
        weights=weights,
        average=average,
        eps=eps,
    )


def maximum(
    *,
    threats: tuple[Projectable, ...] = THREE,
    attack: Attack = _TEN,
    weights: Weights | None = None,
    average: Average | None = None,
    eps: Knob = Constant(),
) -> Recipe:
    """The largest of the losses at the worst points of several threat models, by row (Tramèr & Boneh, 2019)."""
    return Recipe(
        name="maximum",
        source="Tramèr & Boneh, 2019, arXiv:1904.13000",
        inner=_each(threats, attack),
        outer=Worst(*map(CE, _names(threats))),
        weights=weights,
        average=average,
        eps=eps,
    )


def msd(
    *,
    threats: tuple[Projectable, ...] = THREE,
    steps: int = 10,
    rate: float = 0.25,
    weights: Weights | None = None,
    average: Average | None = None,
    eps: Knob = Constant(),
) -> Recipe:
    """The loss at the end of an ascent whose every step is the best of several threat models' (Maini et al., 2020)."""
    _names(threats)
    return Recipe(
        name="msd",
        source="Maini et al., 2020, arXiv:1909.04068",
        inner=Steepest(threats, steps, rate),
        outer=CE("adv"),
        weights=weights,
        average=average,
        eps=eps,
    )


def one_norm_per_batch(
    *,
    threats: tuple[Projectable, ...] = THREE,
    attack: Attack = _TEN,
    weights: Weights | None = None,
    average: Average | None = None,
    eps: Knob = Constant(),
) -> Recipe:
    """The loss at the worst point of one threat model, drawn for every batch (SAT: Madaan et al., 2021)."""
    return Recipe(
        name="one_norm_per_batch",
        source="Madaan et al., 2021, arXiv:2006.12135",
        inner=OneOf(*_one(threats, attack)),
        outer=CE("adv"),
        weights=weights,
        average=average,
        eps=eps,
    )


def eat(
    *,
    threats: tuple[Projectable, ...] = TWO,
    attack: Attack = _TEN,
    keep: float = 0.9,
    weights: Weights | None = None,
    average: Average | None = None,
    eps: Knob = Constant(),
) -> Recipe:
    """One of the extreme norms for each batch, the one with more errors more often (E-AT: Croce & Hein, 2022).

    Linf and L1 are enough: what lies between them follows, by the geometry of the union.
    """
    if not 0 <= keep < 1:
        raise InputError(f"keep is the share of the old error in the running one, from 0 to below 1, got {keep}.")
    return Recipe(
        name="eat",
        source="Croce & Hein, 2022, arXiv:2105.12508",
        inner=ByError(_one(threats, attack), keep),
        outer=CE("adv"),
        weights=weights,
        average=average,
        eps=eps,
    )


def ramp(
    *,
    lam: float = 1.5,
    threats: tuple[Projectable, ...] = TWO,
    attack: Attack = _TEN,
    weights: Weights | None = None,
    average: Average | None = None,
    eps: Knob = Constant(),
) -> Recipe:
    """The larger loss of two norms + lam x divergence between their answers (RAMP: Jiang & Singh, 2024).

    Without the paper's second half, the projection of gradients between this run and a clean one.
    """
    not_negative("lam", lam)
    if len(threats) != 2:
        raise InputError(f"ramp pairs two threat models, got {len(threats)}: take Linf first, then L1.")
    one, other = _names(threats)
    pair: Outer = Paired(one, other)
    return Recipe(
        name="ramp",
        source="Jiang & Singh, 2024, arXiv:2402.06827; without its gradient projection",
        inner=_each(threats, attack),
        outer=Sum(Worst(CE(one), CE(other)), Times(lam, pair)),
        weights=weights,
        average=average,
        eps=eps,
    )


CATALOGUE: tuple[Callable[..., Recipe], ...] = (average, maximum, msd, one_norm_per_batch, eat, ramp)
