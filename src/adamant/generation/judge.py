"""The judge: a small classifier, trained here on the data's own training rows, whose features measure what is made."""

from __future__ import annotations

from collections.abc import Generator
from typing import cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adamant.data import DataSet
from adamant.errors import InputError
from adamant.models import build
from adamant.random import permutation

_BATCH, _RATE, _PASSES = 128, 2e-3, 3


@final
class Judge(nn.Module):
    """A network of the zoo: inputs (n *d) to logits (n k), and the features (n f) before its last layer."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        layers = list(cast(nn.Sequential, net))
        self.body, self.head = nn.Sequential(*layers[:-1]), layers[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    @torch.no_grad()
    def look(self, x: Tensor, chunk: int = 512) -> tuple[Tensor, Tensor]:
        """Features (n f) and the classes that it names (n,)."""
        device = next(self.parameters()).device
        features = torch.cat([self.body(part.to(device)) for part in x.split(chunk)])
        return features.cpu(), self.head(features).argmax(1).cpu()


def train_judge(data: DataSet, seed: int = 0, *, steps: int = 400) -> Judge:
    """A judge for these data, the same one whenever data and seed are the same: `steps` batches, or three passes.

    Raises InputError for data without labels, or of one class.
    """
    classes = len(data.classes)
    labelled = data.take(data.y >= 0)
    if labelled.y.unique().numel() < 2:
        raise InputError(
            f"{data.name} has {labelled.y.unique().numel()} class with labelled rows, and what is made is measured by "
            "a classifier, which needs two: add labels, or another class."
        )
    name = "cnn" if data.x.ndim == 4 and min(data.x.shape[2:]) >= 4 else "mlp"
    judge = Judge(build(name, shape=tuple(data.x.shape[1:]), classes=classes, seed=seed))
    rows = min(_BATCH, len(labelled))
    steps = max(steps, _PASSES * len(labelled) // rows)
    optimizer = torch.optim.Adam(judge.parameters(), _RATE)
    for step, taken in enumerate(_batches(len(labelled), rows, steps, seed)):
        optimizer.param_groups[0]["lr"] = _RATE * (1 - step / steps)
        loss = F.cross_entropy(judge(labelled.x[taken]), labelled.y[taken])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    return judge.eval().requires_grad_(False)


def _batches(n: int, rows: int, steps: int, seed: int) -> Generator[Tensor]:
    each = n // rows
    for step in range(steps):
        epoch, place = divmod(step, each)
        yield permutation(n, seed, f"judge {epoch}")[place * rows : (place + 1) * rows]
