"""How long, how fast and with what regularisation: everything about a training run that is not the recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from torch import nn

from adamant.adversary import Attack
from adamant.attacks.gradient import PGD
from adamant.errors import InputError
from adamant.losses import Margin
from adamant.training.knobs import Knob, OneCycle


@runtime_checkable
class Optimizer(Protocol):
    """Builds the optimiser of a model; weight decay applies to weights of two dimensions and more."""

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

    def build(self, model: nn.Module, l2: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(_groups(model, l2), lr=self.rate, foreach=False)


@final
@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with Nesterov momentum."""

    rate: float = 0.1
    momentum: float = 0.9

    def build(self, model: nn.Module, l2: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(_groups(model, l2), lr=self.rate, momentum=self.momentum, nesterov=self.momentum > 0)


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """The outer loop: epochs, batches, optimiser, regularisation, and how the best checkpoint is chosen."""

    epochs: int = 10
    batch_size: int = 128
    optimizer: Optimizer = Adam()
    shape: Knob = OneCycle()  # of the learning rate over the run
    l1: float = 0.0  # times the sum of absolute weights
    l2: float = 0.0  # weight decay
    dropout: float = 0.0  # before the last linear layer, in the training pass only
    # The best checkpoint is the one that stands best on validation rows against this attack, a margin-driven one:
    # cross-entropy alone mis-ranks checkpoints.
    select: Attack = PGD(steps=10, rate=0.25, loss=Margin())
    select_rows: int = 512
    patience: int | None = None  # stop after so many epochs without a better checkpoint
    save_every: float = 30.0  # seconds between checkpoints, beside the one after every epoch

    def check(self, rows: int) -> None:
        """Raise InputError for a plan that cannot be carried out on so many rows."""
        if self.epochs < 1 or self.batch_size < 1:
            raise InputError(
                f"Training needs at least one epoch and one row per batch, got {self.epochs} and {self.batch_size}."
            )
        if rows < self.batch_size:
            raise InputError(
                f"The training set has {rows} rows, fewer than one batch of {self.batch_size}: lower --batch-size."
            )
        if not 0 <= self.dropout < 1:
            raise InputError(f"Dropout is a share from 0 to below 1, got {self.dropout}.")


CATALOGUE: tuple[type, ...] = (Adam, SGD, Plan)
