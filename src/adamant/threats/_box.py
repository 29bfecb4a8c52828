"""What all norm balls share: the box, the mask of entries that may change, the budget, and their checks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from adamant._types import Inputs, Mask, Scores
from adamant.batch import PerRow, Shared, per_row
from adamant.errors import InputError


@dataclass(frozen=True)
class Ball:
    """A budget `eps` (one, one per row, or none: inf), the range of inputs, and the entries that may change (all)."""

    eps: float | PerRow = math.inf
    box: tuple[float, float] = (0.0, 1.0)
    mask: Shared | PerRow | None = None

    def __post_init__(self) -> None:
        positive = bool((self.eps.values > 0).all()) if isinstance(self.eps, PerRow) else self.eps > 0
        if not positive:
            raise InputError(f"The budget must be positive, got {self.eps}: accuracy at eps = 0 is clean accuracy.")
        low, high = self.box
        if not low < high:
            raise InputError(f"The box must be (low, high) with low < high, got {self.box}.")
        if self.mask is not None and self.mask.values.dtype != torch.bool:
            raise InputError("The mask must hold True where an entry may change and False elsewhere.")

    def at(self, eps: float | PerRow) -> Self:
        """The same threat with another budget, or with one for each row."""
        return replace(self, eps=eps)

    def check(self, x: Inputs) -> None:
        """Raise InputError unless x is a floating-point batch inside the box, without NaN."""
        check_precision(x)
        low, high = self.box
        bad = ~((x >= low) & (x <= high)).flatten(1).all(1) | ~x.isfinite().flatten(1).all(1)
        if bad.any():
            row = int(bad.nonzero()[0])
            values = x[row][~((x[row] >= low) & (x[row] <= high)) | ~x[row].isfinite()]
            raise InputError(
                f"Row {row} holds {values.flatten()[0].item():g}, outside the box [{low:g}, {high:g}] of "
                f"{type(self).__name__}: put normalisation inside the model, or give the threat the box of your data."
            )
        if isinstance(self.eps, PerRow) and len(self.eps.values) != len(x):
            raise InputError(f"There are {len(self.eps.values)} budgets for {len(x)} rows.")
        if self.mask is not None:
            held = tuple(self.mask.values.shape)
            fits = len(held) <= x.ndim and all(a in (1, b) for a, b in zip(held[::-1], x.shape[::-1], strict=False))
            if not fits or (isinstance(self.mask, PerRow) and (len(held) != x.ndim or held[0] != len(x))):
                raise InputError(f"The mask has shape {held}, which does not fit inputs of shape {tuple(x.shape)}.")

    @property
    def width(self) -> float:
        """The width of the box, or 1 where it has no end."""
        low, high = self.box
        return high - low if math.isfinite(high - low) else 1.0

    def clip(self, z: Inputs) -> Inputs:
        """Into the box."""
        return z.clamp(*self.box)

    def budget(self, like: Tensor) -> Scores:
        """The budget of each row, (n,)."""
        return self._limits(like).to(like.dtype)

    def _budget(self, like: Tensor, *, shrink: float = 0.0) -> Tensor | float:
        """The budget, a float, or (n, 1, ...) with one per row; shrunk relatively to leave room for rounding."""
        if not isinstance(self.eps, PerRow):
            return self.eps * (1 - shrink)
        return per_row(self.eps.values.to(like), like) * (1 - shrink)

    def _limits(self, like: Tensor) -> Tensor:
        """The budget of each row, (n,) float64, as it is compared in `contains`."""
        if isinstance(self.eps, PerRow):
            return self.eps.values.double().to(like.device)
        return torch.full((len(like),), float(self.eps), dtype=torch.float64, device=like.device)

    def free(self, values: Tensor) -> Tensor:
        """Zero where an entry may not change; for directions."""
        return values if self.mask is None else values * self.mask.values.to(values.device)

    def _hold(self, z: Inputs, x: Inputs) -> Inputs:
        """x where an entry may not change."""
        return z if self.mask is None else torch.where(self.mask.values.to(x.device), z, x)

    def _inside(self, z: Inputs, x: Inputs) -> Mask:
        """Which rows are finite, in the box, and as they were where they may not change."""
        (low, high), (least, most) = self.box, z.flatten(1).aminmax(dim=1)
        fine = (least >= low) & (most <= high)  # no order holds for a NaN, which is its row's least and most
        if not math.isfinite(high - low):
            fine &= least.isfinite() & most.isfinite()
        if self.mask is not None:
            fine &= ((z == x) | self.mask.values.to(x.device)).flatten(1).all(1)
        return fine

    def _sizes_fit(self, size: Scores, z: Inputs, x: Inputs) -> Mask:
        return self._inside(z, x) & (size <= (self._limits(x) if isinstance(self.eps, PerRow) else self.eps))

    def _room(self, x: Inputs, toward: Tensor) -> Tensor:
        """How far each entry can go from x in the direction of the sign of `toward` before it leaves the box."""
        low, high = self.box
        return torch.where(toward > 0, high - x, x - low) if math.isfinite(high - low) else _roomy(x, toward, low, high)

    def _slack(self, x: Tensor) -> Tensor | float:
        """How far rounding can push x + d: a unit in the last place of the largest value that it can have."""
        low, high = self.box
        if math.isfinite(high - low):
            return max(abs(low), abs(high)) * torch.finfo(x.dtype).eps
        return (x.abs() + self._budget(x)) * torch.finfo(x.dtype).eps

    def _toward(self, z: Inputs, x: Inputs, step: Tensor) -> Inputs:
        """z, the rounded x + step, taken back by a unit in the last place where rounding made it the longer step."""
        return torch.where((z - x).abs() > step.abs(), z.nextafter(x), z)


def _roomy(x: Tensor, toward: Tensor, low: float, high: float) -> Tensor:
    up = torch.full_like(x, torch.inf) if math.isinf(high) else high - x
    down = torch.full_like(x, torch.inf) if math.isinf(low) else x - low
    return torch.where(toward > 0, up, down)


def check_precision(x: Tensor) -> None:
    """Raise InputError for inputs that are no floats, or too coarse to judge."""
    if not x.is_floating_point():
        raise InputError(f"Inputs are {x.dtype}: convert them to floats (and bytes to [0, 1], dividing by 255).")
    if x.dtype not in (torch.float32, torch.float64):
        raise InputError(
            f"Inputs are {x.dtype}: convert them to float32, in which a success can be judged; "
            "Settings(autocast=True) searches in bfloat16."
        )
