"""Optimisers as settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from torch import nn

from adamant.errors import InputError


@runtime_checkable
class Optimizer(Protocol):
    """Builds the optimiser of a network; weight decay applies to weights of two dimensions and more."""

    @property
    def rate(self) -> float: ...

    def build(self, model: nn.Module, l2: float) -> torch.optim.Optimizer: ...


def _groups(model: nn.Module, l2: float) -> list[dict[str, object]]:
    wanted = [p for p in model.parameters() if p.requires_grad]
    if not wanted:
        raise InputError("The model has no parameter that may be trained (all have requires_grad=False).")
    return [
        {"params": [p for p in wanted if p.ndim > 1], "weight_decay": l2},
        {"params": [p for p in wanted if p.ndim <= 1], "weight_decay": 0.0},
    ]


@final
@dataclass(frozen=True)
class Adam:
    """AdamW (Loshchilov & Hutter, 2019, arXiv:1711.05101)."""

    rate: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.999)

    def build(self, model: nn.Module, l2: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(_groups(model, l2), lr=self.rate, betas=self.betas, foreach=False)


@final
@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with Nesterov momentum."""

    rate: float = 0.1
    momentum: float = 0.9

    def build(self, model: nn.Module, l2: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(_groups(model, l2), lr=self.rate, momentum=self.momentum, nesterov=self.momentum > 0)


CATALOGUE: tuple[type, ...] = (Adam, SGD)
