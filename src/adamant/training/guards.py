"""What may go wrong in a run, noticed in time: the run goes back to where it was well, and on with more care."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from torch import nn

from adamant._types import Inputs, Labels
from adamant.adversary import Attack
from adamant.attacks.gradient import FGSM, PGD
from adamant.calling import untouched
from adamant.engine import perturb
from adamant.goals import Untargeted
from adamant.random import Rng
from adamant.threats import Projectable


@runtime_checkable
class Guard(Protocol):
    """Looks at the model every so many steps, on the same few training rows."""

    @property
    def rows(self) -> int: ...

    def interval(self, cost: int) -> int:
        """Steps between two probes, given what a step costs: forward-equivalents, of all rows of a batch together."""
        ...

    def probe(self, model: nn.Module, x: Inputs, y: Labels, threat: Projectable, rng: Rng) -> tuple[float, float]:
        """What the alarm goes by: accuracy under many steps, and under one."""
        ...

    def alarm(self, probe: tuple[float, float], best: float) -> str:
        """What is wrong, in words, given the best accuracy under many steps so far; nothing, where nothing is."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class Collapse:
    """Catastrophic overfitting (Wong et al., 2020, arXiv:2001.03994): the model answers one step and nothing else.

    The alarm is a gap between one step and a small PGD, both within the budget of the moment: a wide one by itself, or
    half of it where accuracy under PGD also fell by `drop` since its best. A model that learns badly falls under both
    and gives no alarm. Probes are so rare that they cost at most `share` of the run.
    """

    every: int = 25  # steps, at least, between probes
    share: float = 0.025  # of the run's passes
    rows: int = 100
    drop: float = 0.1
    gap: float = 0.35
    attack: Attack = PGD(steps=5, rate=0.4)

    def interval(self, cost: int) -> int:
        passes = self.rows * (2 * self.attack.steps + 1 + 3)
        return max(self.every, math.ceil(passes / (self.share * cost)))

    def probe(self, model: nn.Module, x: Inputs, y: Labels, threat: Projectable, rng: Rng) -> tuple[float, float]:
        def standing(attack: Attack) -> float:
            with untouched(model):
                z = perturb(attack, model, x, Untargeted(y), threat, rng=rng)
                with torch.no_grad():
                    return float((model(z).argmax(1) == y).double().mean())

        return standing(self.attack), standing(FGSM())

    def alarm(self, probe: tuple[float, float], best: float) -> str:
        many, one = probe
        if one - many > self.gap or (one - many > self.gap / 2 and best - many > self.drop):
            return (
                f"one step leaves {one:.1%} of the training rows standing, several leave {many:.1%} (best {best:.1%})"
            )
        return ""


CATALOGUE: tuple[type, ...] = (Collapse,)
