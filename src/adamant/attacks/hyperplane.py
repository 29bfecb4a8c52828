"""Hyperplanes in the box: the classes' linearised boundaries, the nearest of them, and the shortest way onto it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from adamant._types import Inputs, Logits, Scores
from adamant.batch import per_row, where
from adamant.desk import Problem
from adamant.goals import Goal, Targeted
from adamant.losses import Loss, Margin, Margins
from adamant.threats import L2, Linf, Normed, Projectable

_ROUNDS = 64  # bound on a search that ends by itself, mostly after 3 to 6 rounds


@final
@dataclass(frozen=True)
class Boundaries:
    """How far beyond each boundary a row is: the margins of the `top` likeliest other classes, likeliest first.

    Targeted there is one to cross, that of the target and the best other class.
    """

    top: int | None = None  # all

    def __call__(self, logits: Logits, goal: Goal) -> Tensor:
        return Margin()(logits, goal)[:, None] if isinstance(goal, Targeted) else Margins(self.top)(logits, goal)


def nearest(threat: Normed, margins: Tensor, slopes: Tensor) -> tuple[Tensor, Scores]:
    """The normal (n, *d) of the nearest boundary in the norm of the threat, and the margin (n,) there, as if affine."""
    margins, least = margins.to(slopes), torch.finfo(slopes.dtype).tiny
    pace = torch.stack([threat.dual(w).clamp_min(least) for w in slopes.unbind(1)], 1)
    row, near = torch.arange(len(slopes), device=slopes.device), (margins.abs() / pace).argmin(1)
    return slopes[row, near], margins[row, near]


def onto(threat: Projectable, z: Inputs, w: Tensor, gap: Scores) -> Tensor:
    """The smallest change d, in the threat's norm, with <w, d> = gap and z + d in the box; z inside it, w (n, *d).

    Exact. Where the box is too narrow for such a change, every entry goes as far as it can.
    """
    toward = w * per_row(gap.sign(), w)
    end = threat.clip(torch.where(toward > 0, torch.inf, -torch.inf).to(z))
    room = torch.where(toward == 0, 0, (end - z).abs()).flatten(1)
    worth = w.flatten(1).abs()
    scale = worth.amax(1).clamp_min(torch.finfo(w.dtype).tiny)  # tiny gradients square to zero in float32
    worth, gap = worth / scale[:, None], gap.abs() / scale
    if isinstance(threat, Linf):
        length = _rise(worth, torch.ones_like(worth), room, gap)
    elif isinstance(threat, L2):
        length = _rise(worth, worth, room, gap)
    else:
        length = _dearest(worth, room, gap)
    return toward.sign() * length.view_as(w)


def _rise(worth: Tensor, pace: Tensor, room: Tensor, gap: Scores) -> Tensor:
    """min(s * pace, room) with the s for which <worth, min(s * pace, room)> = gap.

    The left side is concave and piecewise linear in s, so Newton's method from the left meets each kink at most once
    and ends on the root.
    """
    gain = worth * pace
    tiny = torch.finfo(worth.dtype).tiny
    s = gap / gain.sum(1).clamp_min(tiny)
    for _ in range(_ROUNDS):
        free = s[:, None] * pace < room
        spent = torch.where(free, 0, worth * room).sum(1)
        slope = torch.where(free, gain, 0).sum(1)
        ahead = (gap - spent) / slope.clamp_min(tiny)
        moved = (slope > 0) & (ahead > s * (1 + 1e-7))
        if not bool(moved.any()):
            break
        s = torch.where(moved, ahead, s)
    return torch.where(room > 0, torch.minimum(s[:, None] * pace, room), 0)  # no way there is infinite times zero


def _dearest(worth: Tensor, room: Tensor, gap: Scores) -> Tensor:
    """Entries of the largest worth first, each as far as it can go, until <worth, change> = gap."""
    worth, order = worth.sort(dim=1, descending=True)
    room = room.gather(1, order)
    gained = (worth * room).nan_to_num(0.0, torch.inf).cumsum(1)
    before = torch.cat([torch.zeros_like(gained[:, :1]), gained[:, :-1]], 1)
    need = (gap[:, None] - before).clamp_min(0) / worth.clamp_min(torch.finfo(worth.dtype).tiny)
    return torch.zeros_like(room).scatter(1, order, need.minimum(room))


def tighten(p: Problem, far: Inputs, under: Scores, over: Scores, tries: int, loss: Loss) -> Inputs:
    """Look where the margin might cross zero between x and a success, by secants; gives the nearest success seen.

    `under` and `over` are the margins at x and at the success.
    """

    def point(share: Tensor) -> Inputs:
        return p.threat.clip(p.x + per_row(share, far).to(far) * (far - p.x))

    low, high, least = torch.zeros_like(over), torch.ones_like(over), torch.finfo(over.dtype).tiny
    for _ in range(tries):
        share = high - 0.99 * over * (high - low) / (over - under).clamp_min(least)  # a hair beyond
        logits = p.look(point(share), loss).logits
        fooled, margin = p.goal.reached(logits), Margin()(logits, p.goal)
        low, under = where(fooled, low, share), where(fooled, under, margin)
        high, over = where(fooled, share, high), where(fooled, margin, over)
    return point(high)
