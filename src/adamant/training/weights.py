"""Where the weights stand while the gradient of a step is taken: moved to where the loss is worse, and put back."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn

Gradients = Callable[[], dict[str, Tensor]]  # of the objective by the weights as they stand, in the training mode


@runtime_checkable
class Weights(Protocol):
    """Moves the weights before the gradient of a step is taken."""

    def offset(self, model: nn.Module, gradients: Gradients, done: float) -> dict[str, Tensor]:
        """How far each weight is moved, by its name; nothing, where it stays."""
        ...


@final
@dataclass(frozen=True)
class AWP:
    """Adversarial weight perturbation (Wu et al., 2020, arXiv:2004.05884): each layer a share of its norm uphill.

    Weights of two dimensions and more move; `start` is the share of the run before it begins.
    """

    gamma: float = 0.005
    start: float = 0.0

    def offset(self, model: nn.Module, gradients: Gradients, done: float) -> dict[str, Tensor]:
        if done < self.start:
            return {}
        found, held = gradients(), dict(model.named_parameters())
        return {
            name: g * (self.gamma * held[name].detach().norm() / g.norm().clamp_min(1e-20))
            for name, g in found.items()
            if g.ndim > 1
        }


@final
@dataclass(frozen=True)
class SAM:
    """Sharpness-aware minimisation (Foret et al., 2021, arXiv:2010.01412): all weights together, `rho` uphill."""

    rho: float = 0.05
    start: float = 0.0

    def offset(self, model: nn.Module, gradients: Gradients, done: float) -> dict[str, Tensor]:
        if done < self.start:
            return {}
        found = gradients()
        length = torch.stack([g.norm() for g in found.values()]).norm()
        return {name: g * (self.rho / length.clamp_min(1e-20)) for name, g in found.items()}


@contextmanager
def moved(model: nn.Module, by: dict[str, Tensor]) -> Generator[None]:
    """Inside, the weights are moved; after, they are the same bits as before."""
    held = {name: p for name, p in model.named_parameters() if name in by}
    before = {name: p.detach().clone() for name, p in held.items()}
    with torch.no_grad():
        for name, p in held.items():
            p.add_(by[name])
    try:
        yield
    finally:
        with torch.no_grad():
            for name, p in held.items():
                p.copy_(before[name])


CATALOGUE: tuple[type, ...] = (AWP, SAM)
