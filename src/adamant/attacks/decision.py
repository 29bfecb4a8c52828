"""What attacks by the predicted label share: a first success anywhere, and the way from there back to the boundary."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from adamant._types import Inputs, Mask, Scores
from adamant.batch import Shared, per_row, take, where
from adamant.desk import Problem
from adamant.errors import InputError
from adamant.goals import Targeted
from adamant.losses import Margin
from adamant.random import Rng
from adamant.threats import L2, Linf
from adamant.threats.balls import unit

VERDICT = Margin()  # what the books show; nothing here depends on it
_HALVINGS = 64  # bound on every search by halves


def fools(p: Problem, z: Inputs, rows: Mask) -> Mask:
    """Which of these rows have at z what the adversary wants; the others are not looked at."""
    if bool(rows.all()):
        return p.goal.reached(p.look(z, VERDICT).logits)
    found = torch.zeros_like(rows)
    if bool(rows.any()):
        q = take(p, rows)
        found[rows] = q.goal.reached(q.look(z[rows], VERDICT).logits)
    return found


def fooled_at(p: Problem, zs: Tensor) -> Tensor:
    """Which of k points of each row, zs (k, n, *d), have what the adversary wants: (k, n)."""
    return torch.stack([p.goal.reached(logits) for logits in p.looks(zs, VERDICT).logits])


def noise(p: Problem, rng: Rng, k: int) -> Tensor:
    """Normal directions for each row, zero where the mask forbids change: (k, n, *d)."""
    return p.threat.free(rng.normal(k, *p.x.shape[1:], dtype=p.x.dtype).transpose(0, 1))


def units(v: Tensor) -> Tensor:
    """Several directions for each row, (k, n, *d), at length one."""
    return unit(v.flatten(0, 1)).view(v.shape)


def votes(
    p: Problem, rng: Rng, count: int, draw: Callable[[Rng, int], Tensor], at: Callable[[Tensor], Tensor]
) -> Iterator[tuple[Tensor, Inputs, Scores]]:
    """Random directions, the points that they lead to, and +1 where that fools and -1 where not.

    One after another, so that a sum of them does not depend on how many rows there are.
    """
    chunk = max(1, min(64, 2**20 // p.x[0].numel()))
    for i in range(0, count, chunk):
        u = draw(rng.fold(i), min(chunk, count - i))
        zs = at(u)
        for way, z, fooled in zip(u, zs, fooled_at(p, zs), strict=True):
            yield way, z, torch.where(fooled, 1.0, -1.0).to(z)


def begin(p: Problem, examples: Shared | None, tries: int) -> tuple[Inputs, Mask]:
    """A point for each row that has what the adversary wants, and which rows have found one.

    The nearest of the `examples` (m, *d) that will do, where they are given; else noise, in so many tries.
    """
    if examples is not None:
        pool, tries = examples.values.to(p.x), len(examples.values)
        nearest = _nearest_first(p, pool)

        def candidate(i: int) -> Inputs:
            return pool[nearest[:, i]]

    elif isinstance(p.goal, Targeted):
        raise InputError(
            "An attack by the predicted label finds no target by chance: give examples=Shared(...), "
            "a few inputs that the model takes for the targets, or attack untargeted."
        )
    else:
        candidate = partial(_noise, p)
    z, open_ = p.x, torch.ones(len(p.x), dtype=torch.bool, device=p.x.device)
    for i in range(tries):
        if not bool(open_.any()):
            break
        there = p.threat.clip(p.x + p.threat.free(candidate(i) - p.x))
        found = fools(p, there, open_)
        z, open_ = where(found, there, z), open_ & ~found
    return z, ~open_


def _nearest_first(p: Problem, pool: Tensor) -> Tensor:
    if pool.shape[1:] != p.x.shape[1:]:
        raise InputError(f"Examples of shape {tuple(pool.shape)} do not fit inputs of shape {tuple(p.x.shape)}.")
    far = torch.stack([p.threat.size(p.threat.clip(e.expand_as(p.x)), p.x) for e in pool], 1)
    return far.argsort(dim=1, stable=True)


def _noise(p: Problem, i: int) -> Inputs:
    """In turn: a uniform point of the box, a corner with few or many entries high, a corner in runs, its blend with x.

    Corners reach what uniform noise, all of one length, never does: the far side of a plane, for one.
    """
    rng, shape, size = p.rng.fold("noise").fold(i), p.x.shape[1:], p.x[0].numel()
    u = rng.uniform(*shape, dtype=p.x.dtype)
    if i % 4 == 1:
        u = (u < per_row(rng.fold("high").uniform(dtype=u.dtype), u)).to(u)
    elif i % 4 > 1:
        runs = 2 ** (i // 4 % size.bit_length())
        ends = rng.fold("runs").integers(2, runs).to(u)
        u = ends[:, torch.arange(size, device=u.device) * runs // size].view_as(u)
    low, high = box(p)
    reach = p.threat.width * 2.0 ** min(i, 16)
    noise = low + (high - low) * u if math.isfinite(high - low) else p.x + reach * (2 * u - 1)
    return p.x + per_row(rng.fold("share").uniform(dtype=u.dtype), u) * (noise - p.x) if i % 4 == 3 else noise


def box(p: Problem) -> tuple[float, float]:
    """The ends of an entry's range."""
    assert isinstance(p.threat, (L2, Linf))
    return p.threat.box


def bisect(
    p: Problem, way: Callable[[Scores], Inputs], z: Inputs, far: Scores, narrow: Scores | float, rows: Mask
) -> tuple[Inputs, Scores]:
    """Halve the stretch of the way between 0, that does not fool, and `far`, that does, at z, until it is narrow.

    Returns the nearest point that was seen to fool, and where on the way it is.
    """
    low = torch.zeros_like(far)
    for _ in range(_HALVINGS):
        open_ = rows & (far - low > narrow)
        if not bool(open_.any()):
            break
        middle = (low + far) / 2
        nearer = way(middle)
        fooled = fools(p, nearer, open_)
        z = where(fooled, nearer, z)
        low, far = torch.where(open_ & ~fooled, middle, low), torch.where(fooled, middle, far)
    return z, far


def to_boundary(p: Problem, z: Inputs, narrow: float, rows: Mask) -> Inputs:
    """From a success z towards x up to the boundary, to `narrow` as a share of the way; never less than fooling.

    Along the line on L2; on Linf all entries go on, each until it is no farther from x than the largest may be.
    """
    change = z - p.x
    most = change.abs().flatten(1).amax(1)

    def way(share: Scores) -> Inputs:
        if isinstance(p.threat, Linf):
            return p.threat.clip(p.x + bounded(change, per_row(share * most, change)))
        return p.threat.clip(p.x + change * per_row(share, change))

    return bisect(p, way, z, torch.ones_like(most), max(narrow, torch.finfo(z.dtype).eps), rows)[0]


def bounded(v: Tensor, most: Tensor) -> Tensor:
    """Every entry no larger than `most`."""
    return torch.maximum(torch.minimum(v, most), -most)
