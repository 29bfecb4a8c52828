"""Changes with a few parameters: turning and shifting, bending, recolouring. Attacks search the parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from adamant._types import Inputs
from adamant.errors import InputError
from adamant.threats._box import check_precision


@runtime_checkable
class Parametric(Protocol):
    """x may become apply(x, theta) for any theta whose entries are in [-1, 1]; zero changes nothing, up to rounding.

    Whether some z is a member cannot be seen from z, so attacks look at theta, and the outcome holds apply(x, theta).
    """

    @property
    def box(self) -> tuple[float, float]:
        """The valid range of inputs."""
        ...

    def check(self, x: Inputs) -> None:
        """Raise InputError where x cannot be changed so."""
        ...

    def parameters(self, x: Inputs) -> tuple[int, ...]:
        """The shape of theta for one row."""
        ...

    def apply(self, x: Inputs, theta: Tensor) -> Inputs:
        """x (n, c, h, w) changed by theta (n, *parameters), with a gradient, inside the box."""
        ...


@dataclass(frozen=True)
class Pictures:
    """What all these changes share: the box, and the checks of settings and inputs."""

    box: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        name, (low, high) = type(self).__name__, self.box
        if not low < high or not math.isfinite(high - low):
            raise InputError(f"The box must be (low, high), finite, with low < high, got {self.box}.")
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, (int, float)) and not (math.isfinite(value) and value >= 0):
                raise InputError(f"The setting {f.name} of {name} is {value}: give a number from 0 on.")
            if f.name == "grid" and value < 2:
                raise InputError(f"The grid of {name} has {value} points along each side: give 2 or more.")

    def check(self, x: Inputs) -> None:
        check_precision(x)
        name, (low, high) = type(self).__name__, self.box
        if x.ndim != 4:
            raise InputError(f"{name} changes pictures (rows, channels, height, width), got {tuple(x.shape)}.")
        if not bool(((x >= low) & (x <= high)).all()):
            raise InputError(f"Inputs leave the box [{low:g}, {high:g}] of {name}: give it the box of your data.")


@final
@dataclass(frozen=True, kw_only=True)
class Spatial(Pictures):
    """Turned, shifted and zoomed, empty outside (Engstrom et al., 2019, arXiv:1712.02779)."""

    degrees: float = 30.0
    shift: float = 0.1  # of the side, each way
    zoom: float = 0.0  # larger or smaller by this factor, 0.1 is ten per cent

    @property
    def allows(self) -> str:
        """What the attacker may do, in words."""
        zoom = f", zoom it by up to {self.zoom:.0%}" if self.zoom else ""
        turn, shift = f"turn the picture by up to {self.degrees:g} degrees either way", f"{self.shift:.0%} of its side"
        return f"{turn}{zoom} and shift it by up to {shift}; what comes into view is empty"

    def parameters(self, x: Inputs) -> tuple[int, ...]:
        return (4,)

    def apply(self, x: Inputs, theta: Tensor) -> Inputs:
        angle = theta[:, 0] * math.radians(self.degrees)
        factor = (1 + self.zoom) ** theta[:, 3]
        cos, sin, aspect = angle.cos() / factor, angle.sin() / factor, x.shape[2] / x.shape[3]
        matrix = torch.stack(
            [
                torch.stack([cos, -sin * aspect, 2 * self.shift * theta[:, 1]], 1),
                torch.stack([sin / aspect, cos, 2 * self.shift * theta[:, 2]], 1),
            ],
            1,
        )
        grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
        return _look_up(x, grid, self.box, empty=True)


@final
@dataclass(frozen=True, kw_only=True)
class Flow(Pictures):
    """Each place is fetched from up to `reach` pixels away, smoothly: a coarse grid of shifts, interpolated.

    After stAdv (Xiao et al., 2018, arXiv:1801.02612), which asks for smoothness in its loss; here the set is smooth.
    """

    reach: float = 1.0  # pixels
    grid: int = 5  # shifts along each side

    @property
    def allows(self) -> str:
        """What the attacker may do, in words."""
        return f"bend the picture smoothly, so that no place moves by more than {self.reach:g} pixels along either side"

    def parameters(self, x: Inputs) -> tuple[int, ...]:
        return (2, self.grid, self.grid)

    def apply(self, x: Inputs, theta: Tensor) -> Inputs:
        h, w = x.shape[2:]
        shifts = F.interpolate(theta, size=(h, w), mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
        unit = torch.tensor([2 / w, 2 / h], dtype=x.dtype, device=x.device) * self.reach
        still = torch.eye(2, 3, dtype=x.dtype, device=x.device).expand(len(x), 2, 3)
        return _look_up(
            x, F.affine_grid(still, list(x.shape), align_corners=False) + shifts * unit, self.box, empty=False
        )


@final
@dataclass(frozen=True, kw_only=True)
class Recolour(Pictures):
    """One function of the colour for the whole picture, each channel moved by at most `reach` (a share of the box).

    ReColorAdv (Laidlaw & Feizi, 2019, arXiv:1906.00001), in the picture's own channels: 1 or 3.
    """

    reach: float = 0.1
    grid: int = 5  # knots along each channel

    @property
    def allows(self) -> str:
        """What the attacker may do, in words."""
        return f"change all colours by one smooth rule for the whole picture, no channel by more than {self.reach:.0%}"

    def check(self, x: Inputs) -> None:
        super().check(x)
        if x.shape[1] not in (1, 3):
            raise InputError(f"Recolour changes pictures of 1 or 3 channels, got {x.shape[1]}.")

    def parameters(self, x: Inputs) -> tuple[int, ...]:
        return (x.shape[1], *(self.grid,) * x.shape[1])

    def apply(self, x: Inputs, theta: Tensor) -> Inputs:
        low, high = self.box
        at = (x - low) / (high - low) * 2 - 1  # (n, c, h, w) in [-1, 1]
        if x.shape[1] == 1:
            line = torch.stack([at[:, 0], torch.zeros_like(at[:, 0])], 3)
            moved = F.grid_sample(theta[:, :, None], line, align_corners=True, padding_mode="border")
        else:
            colour = at.permute(0, 2, 3, 1)[:, None].flip(4)  # grid_sample wants the last axis first
            moved = F.grid_sample(theta, colour, align_corners=True, padding_mode="border")[:, :, 0]
        return (x + moved * self.reach * (high - low)).clamp(low, high)


def _look_up(x: Inputs, grid: Tensor, box: tuple[float, float], *, empty: bool) -> Inputs:
    """Bilinear; what lies outside is the low end of the box, or the nearest pixel. Rounding does not leave the box."""
    low, high = box
    if empty:
        return (F.grid_sample(x - low, grid, align_corners=False) + low).clamp(low, high)
    return F.grid_sample(x, grid, align_corners=False, padding_mode="border").clamp(low, high)
