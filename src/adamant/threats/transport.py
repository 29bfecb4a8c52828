"""Mass that flows between neighbouring pixels: the Wasserstein distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from adamant._types import Inputs
from adamant.batch import per_row
from adamant.errors import InputError
from adamant.threats.parametric import Pictures


@final
@dataclass(frozen=True, kw_only=True)
class Wasserstein(Pictures):
    """{x after a few rounds of flow between adjacent pixels that carry its mass by at most `reach` pixels on average}.

    Mass is brightness above the low end of the box, and stays in its channel. Every such z keeps the mass of x, is in
    the box, and W1(x, z) <= reach x mass of x with the L1 ground metric, because that distance is the least total flow
    between adjacent pixels (Levine & Feizi, 2020, arXiv:1910.10783); it holds in exact arithmetic, and up to rounding
    in floats. The set is smaller than that ball: in a round no pixel gives more than it has, none takes more than fits
    below the upper end of the box before it gave, and mass moves by one pixel. After Wong et al., 2019,
    arXiv:1902.07906, whose radius is `reach`, and Wu et al., 2020, arXiv:2004.12478.
    """

    reach: float = 0.1  # pixels, the mean over the mass
    rounds: int = 3  # how many pixels mass can go at most

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 1 or self.reach == 0:
            raise InputError(f"{self!r} moves nothing: give a reach above zero and at least one round.")

    @property
    def allows(self) -> str:
        """What the attacker may do, in words."""
        return (
            f"move brightness from pixel to pixel, by {self.reach:g} pixels on average over all of it and by at most "
            f"{self.rounds}; none is made or lost"
        )

    def parameters(self, x: Inputs) -> tuple[int, ...]:
        """For each round, to the right and down, the share of a pixel's mass that leaves it; negative: back."""
        return (2 * self.rounds * x.shape[1], *x.shape[2:])

    def apply(self, x: Inputs, theta: Tensor) -> Inputs:
        low, high = self.box
        mass, shares = (x - low).contiguous(), theta.unflatten(1, (self.rounds, 2, -1))
        left = self.reach * mass.flatten(1).sum(1)  # what may still be spent, mass times pixels
        for r in range(self.rounds):
            flows = _that_fit(_out(mass, shares[:, r, 0], shares[:, r, 1]), high - low - mass)
            total, most = sum(f.flatten(1).sum(1) for f in flows), left / (self.rounds - r)
            scale = torch.where(total > most, most / torch.where(total > most, total, 1.0), 1.0)
            flows = tuple(f * per_row(scale, f) for f in flows)
            mass, left = mass - _at_source(flows) + _at_goal(flows), left - total * scale
        return (mass + low).clamp(low, high)


# What goes right and left (n, c, h, w - 1), down and up (n, c, h - 1, w): one entry for each pair of neighbours.
Four = tuple[Tensor, ...]


def _out(mass: Tensor, across: Tensor, down: Tensor) -> Four:
    """The mass that leaves each pixel toward each neighbour: its shares, or in proportion where they exceed the whole.

    A clamp lets the slope through at 0, where a search begins.
    """
    across, down = across[..., :-1], down[..., :-1, :]
    shares = (across.clamp(min=0), (-across).clamp(min=0), down.clamp(min=0), (-down).clamp(min=0))
    given = mass / _at_source(shares).clamp(min=1)
    sources = (given[..., :-1], given[..., 1:], given[..., :-1, :], given[..., 1:, :])
    return tuple(f * g for f, g in zip(shares, sources, strict=True))


def _that_fit(flows: Four, room: Tensor) -> Four:
    """The flows, less where more would come to a pixel than it has room for."""
    comes = _at_goal(flows)
    fit = torch.where(comes > room, room / torch.where(comes > room, comes, 1.0), 1.0)
    goals = (fit[..., 1:], fit[..., :-1], fit[..., 1:, :], fit[..., :-1, :])
    return tuple(f * g for f, g in zip(flows, goals, strict=True))


def _at_source(flows: Four) -> Tensor:
    """What leaves each pixel (n, c, h, w)."""
    right, back, down, up = flows
    return F.pad(right, (0, 1)) + F.pad(back, (1, 0)) + F.pad(down, (0, 0, 0, 1)) + F.pad(up, (0, 0, 1, 0))


def _at_goal(flows: Four) -> Tensor:
    """What comes to each pixel (n, c, h, w)."""
    right, back, down, up = flows
    return F.pad(right, (1, 0)) + F.pad(back, (0, 1)) + F.pad(down, (0, 0, 1, 0)) + F.pad(up, (0, 0, 0, 1))
