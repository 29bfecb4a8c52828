"""Views whose strength follows each row: attacks that stop early, budgets that adapt, points at the margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from adamant._types import Inputs, Labels
from adamant.adversary import Attack
from adamant.attacks.gradient import PGD
from adamant.batch import PerRow, per_row, where
from adamant.errors import InputError
from adamant.goals import Untargeted
from adamant.random import Rng
from adamant.threats import Projectable
from adamant.training.parts import Batch, Memory, attacked, passes, scaled
from adamant.training.points import logits_of, normed, remember, slope


@final
@dataclass(frozen=True, kw_only=True)
class Early:
    """The view `adv`: an attack that stops so many steps after the row first fell: friendly, not worst.

    Friendly adversarial training (Zhang et al., 2020, arXiv:2002.11242). `after` has one number for each equal share of
    the run. Rows that have stopped are not asked again, so that a step costs less than it says.
    """

    steps: int = 10
    rate: float = 0.25  # of the budget, per step
    after: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        if not self.after or min(self.after) < 0 or self.steps < 1 or not self.rate > 0:
            raise InputError(
                f"An attack that stops early needs steps, a rate and some steps after, none below 0; got {self}."
            )

    @property
    def cost(self) -> int:
        """At most, where no row falls."""
        return 2 * self.steps

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        x, y, z = batch.x, batch.y, threat.sample(batch.x, batch.rng.fold("start")).clone()
        left = torch.full_like(y, self.after[min(int(batch.done * len(self.after)), len(self.after) - 1)])
        going = torch.arange(len(y), device=y.device)
        for _ in range(self.steps):
            logits, g = slope(model, z[going], y[going], batch)
            fell = logits.argmax(1) != y[going]
            on = ~fell | (left[going] > 0)
            left[going] -= fell.long()
            going = going[on]
            if not len(going):
                break
            z[going] = threat.project(threat.move(z[going], g[on], self.rate), x[going])
        return {"adv": z}


@final
@dataclass(frozen=True, kw_only=True)
class OwnBudget:
    """The view `adv`: within a budget of each row's own, which grows when the row stands and shrinks when it falls.

    Instance adaptive adversarial training (Balaji et al., 2019, arXiv:1910.08051), which attacks each row at several
    budgets to choose; here one more forward at the end of the one attack judges, as in Cheng et al., 2020,
    arXiv:2002.06789. Budgets begin at one of the run's.
    """

    attack: Attack = PGD(steps=10, rate=0.25)
    grow: float = 0.1  # budgets, per visit
    low: float = 0.0
    high: float = 1.5

    def __post_init__(self) -> None:
        if not (self.grow > 0 and 0 <= self.low <= 1 <= self.high):
            raise InputError(
                f"Budgets grow by more than 0, from low (0 to 1) to high (from 1 on); got grow={self.grow}, "
                f"low={self.low}, high={self.high}."
            )

    @property
    def cost(self) -> int:
        return passes(self.attack) + 1

    def refresh(self, model: nn.Module, x: Inputs, y: Labels, threat: Projectable, rng: Rng, memory: Memory) -> None:
        if "budgets" not in memory:
            memory["budgets"] = torch.ones(len(x), device=x.device)

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        share, goal = memory["budgets"][batch.places], Untargeted(batch.y)
        own = normed(threat, self).at(PerRow((threat.budget(batch.x) * share).clamp_min(1e-12)))
        z = attacked(self.attack, model, batch, goal, own)
        stands = ~goal.reached(logits_of(model, z, batch))
        share = (share + torch.where(stands, self.grow, -self.grow)).clamp(self.low, self.high)
        remember(memory, "budgets", batch.places, share)
        return {"adv": z}


@final
@dataclass(frozen=True, kw_only=True)
class AtMargin:
    """The view `adv`: just beyond the decision boundary, in the direction of an attack; found by bisection.

    Max-margin adversarial training (Ding et al., 2020, arXiv:1812.02637). Rows that are wrong already and rows that
    stand the whole attack, at `far` budgets, stay where they are.
    """

    attack: Attack = PGD(steps=10, rate=0.25)
    far: float = 1.5  # budgets: the largest margin that is asked of a row
    rounds: int = 6  # of bisection, a forward each

    def __post_init__(self) -> None:
        if not (self.far > 0 and self.rounds >= 1):
            raise InputError(f"A margin needs far above 0 and at least one round, got {self.far} and {self.rounds}.")

    @property
    def cost(self) -> int:
        return passes(self.attack) + 2 + self.rounds

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        x, goal = batch.x, Untargeted(batch.y)
        wide = scaled(normed(threat, self), self.far)
        z = attacked(self.attack, model, batch, goal, wide)
        crosses = goal.reached(logits_of(model, z, batch)) & ~goal.reached(logits_of(model, x, batch))
        low, high = x.new_zeros(len(x)), x.new_ones(len(x))
        for _ in range(self.rounds):
            middle = (low + high) / 2
            fooled = goal.reached(logits_of(model, threat.clip(x + per_row(middle, x) * (z - x)), batch))
            low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)
        return {"adv": where(crosses, threat.clip(x + per_row(high, x) * (z - x)), x)}


CATALOGUE: tuple[type, ...] = (Early, OwnBudget, AtMargin)
