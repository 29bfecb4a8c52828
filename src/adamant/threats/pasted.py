"""One printed picture, pasted somewhere on the input: a sticker that somebody puts on a sign."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from adamant._types import Inputs
from adamant.batch import Shared, per_row
from adamant.errors import InputError
from adamant.threats.parametric import Pictures


@final
@dataclass(frozen=True, kw_only=True)
class Pasted(Pictures):
    """{x with one given picture pasted over it, turned and resized, wholly inside; or x as it is, where theta is 0}.

    Brown et al., 2017, arXiv:1712.09665. The picture is (c, h, w) in the units of the input. Its centre may be anywhere
    that leaves it, frame and all, on the input. The mask (h, w) is False where the print is cut away: any shape.
    """

    picture: Shared
    mask: Shared | None = None
    degrees: float = 20.0  # turned by up to so much, either way
    zoom: float = 0.2  # larger or smaller by this factor, 0.1 is ten per cent

    def __post_init__(self) -> None:
        super().__post_init__()
        held, (low, high) = self.picture.values, self.box
        if held.ndim != 3 or not held.numel():
            raise InputError(f"The picture to paste is (channels, height, width), got {tuple(held.shape)}.")
        if not bool(((held >= low) & (held <= high)).all()):
            raise InputError(f"The picture to paste leaves the box [{low:g}, {high:g}]: nobody could print it.")
        if self.mask is None:
            return
        if self.mask.values.dtype != torch.bool or self.mask.values.shape != held.shape[1:]:
            raise InputError(
                f"The mask holds True where the picture is, one for each pixel {tuple(held.shape[1:])}; "
                f"got {tuple(self.mask.values.shape)} of {self.mask.values.dtype}."
            )
        if not bool(self.mask.values.any()):
            raise InputError("The mask cuts the whole picture away: nothing would be pasted.")

    @property
    def allows(self) -> str:
        """What the attacker may do, in words."""
        h, w = self.picture.values.shape[1:]
        zoom = f", up to {self.zoom:.0%} larger or smaller" if self.zoom else ""
        return (
            f"paste one printed picture of {h} by {w} pixels, the same for all inputs, anywhere on the input, "
            f"turned by up to {self.degrees:g} degrees either way{zoom}"
        )

    def check(self, x: Inputs) -> None:
        super().check(x)
        held = self.picture.values.shape
        if held[0] != x.shape[1]:
            raise InputError(f"The picture to paste has {held[0]} channels, the inputs {x.shape[1]}.")
        turns = torch.linspace(0, math.radians(min(self.degrees, 180.0)), 181)  # the widest may lie in between
        high, wide = self._extent(turns, torch.tensor(1 + self.zoom))
        if float(high.max()) > x.shape[2] or float(wide.max()) > x.shape[3]:
            raise InputError(
                f"A picture of {tuple(held[1:])}, turned by up to {self.degrees:g} degrees and {self.zoom:.0%} larger, "
                f"does not fit on inputs of {tuple(x.shape[2:])}: make it smaller."
            )

    def parameters(self, x: Inputs) -> tuple[int, ...]:
        return (4,)

    def apply(self, x: Inputs, theta: Tensor) -> Inputs:
        return self.paste(x, theta, self.picture.values.to(x))

    def paste(self, x: Inputs, theta: Tensor, picture: Tensor) -> Inputs:
        """`apply` with another picture (c, h, w) of the same shape, with a gradient by it too."""
        cover = torch.ones_like(picture[:1]) if self.mask is None else self.mask.values.to(picture)[None]
        grid = self._grid(x, theta)
        print_, over = (
            F.grid_sample(v.expand(len(x), *v.shape[1:]), grid, align_corners=False)
            for v in ((picture * cover)[None], cover[None])
        )
        # Both fall off alike at the edge of the print, so a pixel that it covers in part is a mixture.
        pasted = (x + (print_ - over * x)).clamp(*self.box)
        # Nothing is pasted at 0, and so there is no slope; lent is that of the picture in the middle, to begin with.
        return torch.where(per_row(theta.flatten(1).any(1), x), pasted, x + (pasted - pasted.detach()))

    def _extent(self, angle: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        """Height and width of the frame around the picture, turned and resized, in pixels of the input."""
        h, w = self.picture.values.shape[1:]
        cos, sin = angle.cos().abs(), angle.sin().abs()
        return factor * (h * cos + w * sin), factor * (w * cos + h * sin)

    def _grid(self, x: Inputs, theta: Tensor) -> Tensor:
        """For each pixel of the input its place on the picture, whose sides are [-1, 1]; theta is turn, x, y, size."""
        angle, factor = theta[:, 0] * math.radians(self.degrees), (1 + self.zoom) ** theta[:, 3]
        h, w = self.picture.values.shape[1:]
        high, wide = self._extent(angle, factor)
        across = theta[:, 1] * ((x.shape[3] - wide) / 2).clamp_min(0)  # of the centre, in pixels from the middle
        down = theta[:, 2] * ((x.shape[2] - high) / 2).clamp_min(0)
        row = torch.arange(x.shape[2], dtype=x.dtype, device=x.device) - (x.shape[2] - 1) / 2
        column = torch.arange(x.shape[3], dtype=x.dtype, device=x.device) - (x.shape[3] - 1) / 2
        dy, dx = row[None, :, None] - down[:, None, None], column[None, None, :] - across[:, None, None]
        cos, sin = (angle.cos() / factor)[:, None, None], (angle.sin() / factor)[:, None, None]
        return torch.stack([(cos * dx + sin * dy) * (2 / w), (cos * dy - sin * dx) * (2 / h)], 3)
