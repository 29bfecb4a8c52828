"""What the adversary wants of each row, and when it has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor

from adamant._types import Labels, Logits, Mask
from adamant.batch import Rows
from adamant.errors import InputError


def top_class(logits: Logits) -> Labels:
    """The predicted class, and -1 where a logit is NaN: NaN is never a decision."""
    top = logits.max(1)  # a NaN is its own maximum
    return torch.where(top.values.isnan(), -1, top.indices)


@runtime_checkable
class Goal(Protocol):
    """What the adversary wants; a row's goal travels with the row."""

    @property
    def anchor(self) -> Tensor:
        """The class that the model should keep to, (n,)."""
        ...

    def reached(self, logits: Logits) -> Mask:
        """Which rows have what the adversary wants; never a row with a NaN."""
        ...

    def check(self, classes: int) -> None:
        """Raise InputError where the goal does not fit a model of so many classes."""
        ...


def _check_labels(name: str, labels: Tensor, classes: int) -> None:
    bad = (labels < 0) | (labels >= classes)
    if bad.any():
        row = int(bad.nonzero()[0])
        raise InputError(
            f"{name} {int(labels[row])} of row {row} is outside 0..{classes - 1}: the model has {classes} classes."
        )


@final
@dataclass(frozen=True)
class Untargeted(Rows):
    """Any class but the label."""

    label: Tensor

    @property
    def anchor(self) -> Tensor:
        return self.label

    def reached(self, logits: Logits) -> Mask:
        top = logits.max(1)  # a NaN is its own maximum, and does not equal itself
        return (top.indices != self.label).logical_and_(top.values == top.values)

    def check(self, classes: int) -> None:
        _check_labels("Label", self.label, classes)


@final
@dataclass(frozen=True)
class Targeted(Rows):
    """One chosen class, other than the label."""

    label: Tensor
    target: Tensor

    @property
    def anchor(self) -> Tensor:
        return self.label

    def reached(self, logits: Logits) -> Mask:
        return top_class(logits) == self.target

    def check(self, classes: int) -> None:
        _check_labels("Label", self.label, classes)
        _check_labels("Target", self.target, classes)
        same = self.label == self.target
        if same.any():
            row = int(same.nonzero()[0])
            raise InputError(
                f"The target of row {row} is its label ({int(self.target[row])}): "
                "choose another target, or attack untargeted."
            )


@final
@dataclass(frozen=True)
class Diverge(Rows):
    """A decision other than the model's own on the reference logits; needs no labels."""

    reference: Tensor  # (n, k)

    @property
    def anchor(self) -> Tensor:
        return self.reference.argmax(1)

    def reached(self, logits: Logits) -> Mask:
        return Untargeted(self.anchor).reached(logits)

    def check(self, classes: int) -> None:
        if self.reference.shape[1] != classes:
            raise InputError(f"The reference has {self.reference.shape[1]} classes, the model {classes}.")
