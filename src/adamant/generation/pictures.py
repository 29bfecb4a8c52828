"""What people look at: grids of pictures, and codes as points in the plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adamant.errors import InputError
from adamant.generation.base import Material

COLUMNS = 10  # of what `Game.show` returns


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """Pictures in rows of so many, and what they show."""

    title: str
    x: Tensor  # (n c h w)
    columns: int


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Map:
    """Points in the plane with the class of each, and what they show."""

    title: str
    points: Tensor  # (n 2)
    y: Tensor  # (n,)
    drawn: Tensor  # (m 2) draws of the prior, in the same plane


@runtime_checkable
class Gallery(Protocol):
    """A game that has more to look at than `show`."""

    def gallery(self, networks: nn.Module, material: Material, seed: int) -> tuple[Grid | Map, ...]: ...


def below(x: Tensor, made: Tensor, title: str = "") -> Grid:
    """Rows of ten pictures, and below each picture the other one of its pair; the places that are left are white."""
    white = x.new_ones(-len(x) % COLUMNS, *x.shape[1:])
    halves = (torch.cat([half, white]).split(COLUMNS) for half in (x, made))
    return Grid(title=title, x=torch.cat([row for pair in zip(*halves, strict=True) for row in pair]), columns=COLUMNS)


def sheet(grid: Grid, *, least: int = 280) -> Tensor:
    """One picture (h w c) of all of them, with a hair between; small ones are enlarged until it has `least` a side."""
    x = grid.x.detach().float().cpu()
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise InputError(f"Pictures are (n 1 h w) or (n 3 h w), got {tuple(x.shape)}.")
    rows = -(-len(x) // grid.columns)
    full = torch.ones(rows * grid.columns, *x.shape[1:])
    full[: len(x)] = x
    times = max(1, -(-least // (grid.columns * x.shape[3])))
    framed = F.pad(full.repeat_interleave(times, 2).repeat_interleave(times, 3), (0, 1, 0, 1), value=0.5)
    return framed.unflatten(0, (rows, grid.columns)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
