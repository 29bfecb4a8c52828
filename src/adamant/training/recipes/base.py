"""A recipe is a value: what each training step makes and minimises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from adamant.errors import InputError
from adamant.runtime.average import Average
from adamant.runtime.knobs import Constant, Knob
from adamant.training.guards import Guard
from adamant.training.parts import Inner
from adamant.training.views import Outer, cost_of, views_of
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


def not_negative(name: str, value: float) -> None:
    """Raise InputError for a weight that would turn a penalty into a reward."""
    if not value >= 0:
        raise InputError(f"{name} must not be negative, got {value}.")


def share_of(name: str, value: float) -> None:
    """Raise InputError for a share that is none."""
    if not 0 < value <= 1:
        raise InputError(f"{name} is a share, above 0 and no more than 1, got {value}.")
