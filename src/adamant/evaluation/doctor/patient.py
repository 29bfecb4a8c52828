"""The model under examination: every question to it is counted here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, final

import torch
from torch import Tensor, nn

from adamant._types import Inputs, Logits, Mask, Scores
from adamant.calling import Caller, Settings, device_of, unwrapped
from adamant.data import Readable
from adamant.goals import Untargeted
from adamant.losses import Loss, Margin
from adamant.models.wrap import WRAPPERS
from adamant.random import Rng, sealed
from adamant.threats import Projectable

_AT_ONCE = 256


class Labelled(Protocol):
    """Inputs, labels, where each row came from, and the names of the classes."""

    @property
    def x(self) -> Readable: ...
    @property
    def y(self) -> Tensor: ...
    @property
    def rows(self) -> Tensor: ...
    @property
    def classes(self) -> tuple[str, ...]: ...


@dataclass
class Passes:
    """Rows that went forward and backward."""

    forwards: int = 0
    backwards: int = 0


@final
@dataclass(frozen=True, kw_only=True)
class Patient:
    """The model as it is attacked, the rows to ask it with, and what it says of them."""

    model: nn.Module
    settings: Settings
    x: Inputs
    y: Tensor  # labels that the model has; its own decisions where those given are of no use
    rng: Rng
    threat: Projectable
    clean: Logits
    passes: Passes

    def ask(self, z: Inputs, *, seed: int = 0) -> Logits:
        """Logits of z (n k), without a graph; the seed is for models that draw."""
        return ask(self.model, self.settings, self.passes, z, seed)

    def slope(self, z: Inputs, y: Tensor, loss: Loss) -> tuple[Logits, Scores, Inputs]:
        """Logits, loss and the gradient of the loss by z; a None or an error of autograd is the caller's to hear."""
        caller, out = Caller(unwrapped(self.model), self.settings), list[tuple[Tensor, Tensor, Tensor]]()
        for part, labels in zip(z.split(self._size), y.split(self._size), strict=True):
            with torch.enable_grad(), sealed(0):
                here = part.detach().requires_grad_(True)
                logits = caller(here)
                score = loss(logits, Untargeted(labels))
                g = torch.autograd.grad(score.sum(), here)[0]
            out.append((logits.detach(), score.detach(), g))
        self.passes.forwards += len(z)
        self.passes.backwards += len(z)
        logits, score, g = (torch.cat(parts) for parts in zip(*out, strict=True))
        return logits, score, g

    def margin(self, z: Inputs, y: Tensor) -> Scores:
        """Best other logit minus the label's."""
        return Margin()(self.ask(z), Untargeted(y))

    @property
    def _size(self) -> int:
        return self.settings.batch_size or _AT_ONCE

    @property
    def right(self) -> Mask:
        """Rows that the model has right."""
        return ~Untargeted(self.y).reached(self.clean)

    @property
    def unit(self) -> float:
        """The scale of the logits: their spread within a row, on average; what makes a threshold free of it."""
        return max(float(self.clean.double().std(1).mean()), 1e-30)

    def but(self, model: nn.Module) -> Patient:
        """The same rows, another model."""
        return replace(self, model=model)


def ask(model: nn.Module, settings: Settings, passes: Passes, z: Inputs, seed: int = 0) -> Logits:
    """Logits of z, in batches; raises ModelError where the model does."""
    caller = Caller(unwrapped(model), settings)
    passes.forwards += len(z)
    with torch.no_grad(), sealed(seed):
        return torch.cat([caller(part) for part in z.split(settings.batch_size or _AT_ONCE)])


def bare(model: nn.Module) -> nn.Module:
    """The person's own model, inside whatever was put around it to make logits of its answer."""
    model = unwrapped(model)
    while isinstance(model, WRAPPERS):
        model = model.net
    return model


def place(model: nn.Module, settings: Settings, x: Tensor) -> torch.device:
    """Where the questions are asked."""
    return torch.device(settings.device) if settings.device else device_of(model, x)
