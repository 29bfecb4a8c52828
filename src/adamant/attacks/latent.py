"""Search in the latent space of a generator, whose own classifier keeps what is drawn like its class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, final, runtime_checkable

import torch
from torch import Tensor

from adamant._types import Scores
from adamant.access import Look, Sight
from adamant.attacks.starts import Anywhere, Start
from adamant.batch import Rows, per_row
from adamant.desk import Problem
from adamant.errors import InputError
from adamant.losses import Loss, Margin


@runtime_checkable
class Guided(Protocol):
    """A change with parameters that says, with a gradient, how much what it makes is like its class."""

    def likeness(self, theta: Tensor) -> Scores:
        """Larger where it is, (n,)."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class LatentSearch:
    """Ascent on loss + weight * log p(label | what is drawn), p a classifier that learned beside the generator.

    Song et al., 2018, arXiv:1805.07894, with a margin on logits and signed steps with momentum, `rate` widths of the
    set long, that fall to nothing. For threat models of latents, such as `adamant.generation.Latent`. The
    gradient of the second term is not counted: it does not ask the model.
    """

    steps: int = 50
    rate: float = 0.2
    weight: float = 0.3
    momentum: float = 0.75
    loss: Loss = Margin()
    start: Start = Anywhere()
    needs: ClassVar[Sight] = Sight.GRADIENT

    @dataclass(frozen=True)
    class State(Rows):
        """Where it looks, and the direction of the steps before."""

        z: Tensor
        way: Tensor

    def init(self, p: Problem) -> State:
        if not isinstance(p.change, Guided):
            raise InputError(
                "LatentSearch works in the latent space of a generator: give it the threat model that "
                "adamant.generation.latent.unrestricted makes."
            )
        z = self.start(p)
        return self.State(z, torch.zeros_like(z))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        assert isinstance(p.change, Guided)
        with torch.enable_grad():
            z = s.z.detach().requires_grad_(True)
            (toward,) = torch.autograd.grad(p.change.likeness(z).sum(), z)
        slope = seen.slope + self.weight * toward
        way = self.momentum * s.way + slope / per_row(slope.flatten(1).abs().mean(1).clamp_min(1e-12), slope)
        return self.State(p.project(p.threat.move(s.z, way, 2 * self.rate * (1 - t / self.steps))), way)
