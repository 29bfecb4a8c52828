"""Recipes: what each training step makes and minimises. A recipe is a value; these functions write the known ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from adamant import losses
from adamant.attacks.gradient import FGSM, PGD
from adamant.attacks.starts import Near
from adamant.engine import Attack
from adamant.errors import InputError
from adamant.training.average import Average
from adamant.training.guards import Collapse, Guard
from adamant.training.inner import Ascend, Inner, Keep, Pool, Stray
from adamant.training.knobs import Constant, Knob
from adamant.training.outer import CE, KL, Balanced, Outer, Sum, Times, cost_of, views_of
from adamant.training.weights import Weights
from adamant.values import brief


@final
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """inner (who points) x outer (what is minimised) x weights x average x the schedule of the budget."""

    name: str
    source: str
    inner: Inner
    outer: Outer
    weights: Weights | None = None  # where the weights stand while the gradient is taken
    average: Average | None = None
    eps: Knob = Constant()  # multiplies the budget during training
    guard: Guard | None = None
    replay: int = 1  # steps in a row on the same batch
    joint: bool = False  # the views go through the model as one batch, so that its statistics are those of all of them
    attack_in_training_mode: bool = False  # instead of the eval mode

    @property
    def cost(self) -> int:
        """Forward-equivalents per step and row: forward 1, backward by input 1, backward by weights 1 more."""
        return self.inner.cost + cost_of(self.outer) * (2 if self.weights else 1)

    @property
    def hardens(self) -> bool:
        """Whether it is for robustness at all; the best checkpoint of others is chosen by clean accuracy."""
        return self.inner.cost > 0 or self.replay > 1 or self.cost > 3 * len(self.views)

    @property
    def formula(self) -> str:
        """What is minimised, in one line."""
        return f"minimise mean[ {self.outer} ]"

    @property
    def views(self) -> tuple[str, ...]:
        """The views whose logits the loss reads."""
        return views_of(self.outer)

    def explain(self) -> str:
        """Formula, source and cost, for a person."""
        moved = f"; gradient taken under {self.weights}" if self.weights else ""
        average = f"; evaluated and saved as {self.average}" if self.average else ""
        return (
            f"{self.name}: {self.formula}, views from {brief(self.inner)}{moved}{average}. {self.source}. "
            f"Costs {self.cost} forwards per row and step ({self.cost / 3:.1f} times ordinary training)."
        )


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
        outer=Sum(CE("clean"), Times(beta, KL("clean", "adv"))),
        weights=weights,
        average=average,
        eps=eps,
    )


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


def not_negative(name: str, value: float) -> None:
    """Raise InputError for a weight that would turn a penalty into a reward."""
    if not value >= 0:
        raise InputError(f"{name} must not be negative, got {value}.")


CATALOGUE: tuple[Callable[..., Recipe], ...] = (standard, augmented, mixed, madry, trades, fast)
