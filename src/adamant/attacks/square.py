"""Random search in squares: Square, for Linf, L2 and L1."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F

from adamant._types import Inputs
from adamant.access import Look, Sight
from adamant.attacks.pictures import picture, window
from adamant.attacks.starts import Start
from adamant.batch import Rows, per_row, where
from adamant.desk import Problem
from adamant.losses import Loss, Margin
from adamant.random import Rng
from adamant.threats import L1, L2, Linf
from adamant.threats.balls import unit

# The side of the squares shrinks after so many steps of ten thousand, each time by the root of two.
_SHRINKS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@final
@dataclass(frozen=True, kw_only=True)
class Square:
    """A square of the change, at a random place, is redrawn and kept if it helps; squares shrink as time goes on.

    Andriushchenko et al., 2020, arXiv:1912.00049, with their schedule scaled to `steps`; on L1 as Croce & Hein, 2021,
    arXiv:2103.01208. In narrow pictures, and in flat inputs, a square that does not fit is a strip of the same area.
    For a target the authors climb `CrossEntropy()`.
    """

    steps: int = 5000
    share: float = 0.8  # of the picture, in the first squares
    span: int | None = None  # steps of the whole schedule; None: as many as there are, AutoAttack takes 10000
    start: Start | None = None  # None: stripes (Linf) or tiles (L2, L1) of the whole budget
    loss: Loss = Margin()
    needs: ClassVar[Sight] = Sight.SCORES
    threats: ClassVar[tuple[type, ...]] = (Linf, L2, L1)

    @dataclass(frozen=True)
    class State(Rows):
        """The try to look at, the best so far, and its loss."""

        z: Tensor
        best: Tensor
        loss: Tensor

    def init(self, p: Problem) -> State:
        first = self.start(p) if self.start else _stripes(p) if isinstance(p.threat, Linf) else _tiles(p)
        return self.State(first, first, torch.full((len(p.x),), -torch.inf, dtype=torch.float64, device=p.x.device))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        better = seen.loss.double() > s.loss
        best, loss = where(better, s.z, s.best), torch.where(better, seen.loss.double(), s.loss)
        shrunk = sum(int(t / (self.span or self.steps) * 10000) > at for at in _SHRINKS)
        rng, share = p.rng.fold("try").fold(t), self.share / 2**shrunk
        redraw = _recolour if isinstance(p.threat, Linf) else _move_mass
        return self.State(redraw(p, best, share, rng), best, loss)


def _sides(share: float, rows: int, columns: int, least: int) -> tuple[int, int]:
    """Height and width of a square of so much of the picture, or of a strip if the picture is too narrow for it."""
    side = max(round((share * rows * columns) ** 0.5), least)
    side += least > 1 and side % 2 == 0  # a middle row keeps the two halves of the window apart
    short = min(side, rows, columns)
    long = side if short == side else min(max(round(share * rows * columns / short), short, least), max(rows, columns))
    return (short, long) if rows <= columns else (long, short)


def _corner(rng: Rng, high: int, wide: int, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Where the window of each row begins; every place that holds it, the last one too, is as likely."""
    rows, columns = pictures.shape[-2:]
    return rng.fold("top").integers(rows - high + 1), rng.fold("left").integers(columns - wide + 1)


# --- Linf: every entry at an end of its range, one colour per square ------------------------------------------------


def _stripes(p: Problem) -> Inputs:
    """Columns at random ends of the budget."""
    x = picture(p.x)
    sign = p.rng.fold("stripes").sign(x.shape[1], 1, x.shape[3], dtype=x.dtype)
    return p.project((x + per_row(p.threat.budget(x), x) * sign).reshape(p.x.shape))


def _recolour(p: Problem, best: Inputs, share: float, rng: Rng) -> Inputs:
    """A square of each row goes to one end of the budget, by channel; a draw that changes nothing is turned round."""
    x, now = picture(p.x), picture(best)
    high, wide = _sides(share, *x.shape[-2:], least=1)
    inside = window(*_corner(rng, high, wide, x), high, wide, x)
    colour = per_row(p.threat.budget(x), x) * rng.fold("colour").sign(x.shape[1], 1, 1, dtype=x.dtype)
    z = p.project(torch.where(inside, x + colour, now).reshape(p.x.shape))
    same = (z == best).flatten(1).all(1)
    if not bool(same.any()):
        return z
    return where(same, p.project(torch.where(inside, x - colour, now).reshape(p.x.shape)), z)


# --- L2 and L1: two opposite heaps per square, paid for by what another square gives up -----------------------------


def _tiles(p: Problem) -> Inputs:
    """Five by five tiles, each with a heap up and a heap down."""
    x = picture(p.x)
    n, channels, rows, columns = x.shape
    high, wide = max(1, rows // 5), max(1, columns // 5)
    down, across = rows // high, columns // wide
    rng = p.rng.fold("tiles")
    heaps = _heaps(high, wide, _power(p), x.dtype, x.device)[rng.fold("cut").integers(2, down, across)]
    sign = rng.fold("sign").sign(channels, down, across, 1, 1, dtype=x.dtype)
    tiled = (sign * heaps[:, None]).transpose(3, 4).reshape(n, channels, down * high, across * wide)
    top, left = (rows - down * high) // 2, (columns - across * wide) // 2
    bottom, right = rows - down * high - top, columns - across * wide - left
    return _spend(p, F.pad(tiled, (left, right, top, bottom)) * p.threat.width)


def _move_mass(p: Problem, best: Inputs, share: float, rng: Rng) -> Inputs:
    """A second square is emptied, and the first gets its mass, its own and what the budget has left."""
    x, power = picture(p.x), _power(p)
    n, channels, rows, columns = x.shape
    high, wide = _sides(share, rows, columns, least=3)
    high, wide = min(high, rows), min(wide, columns)
    change = (picture(best) - x).flatten(2).contiguous()  # sums go the same way in every layout

    def places(reason: str) -> Tensor:
        top, left = _corner(rng.fold(reason), high, wide, x)
        down, across = (torch.arange(k, device=x.device) for k in (high, wide))
        at = (top[:, None] + down)[:, :, None] * columns + (left[:, None] + across)[:, None]
        return at.view(n, 1, -1).expand(-1, channels, -1)

    def mass(v: Tensor) -> Tensor:
        return v.abs().pow(power).sum(-1, keepdim=True)

    one, other = places("one"), places("other")
    old = change.gather(2, one)
    left = (per_row(p.threat.budget(x), change) ** power - mass(change).sum(1, keepdim=True)).clamp_min(0)
    emptied = change.scatter(2, one, 0.0)
    owned = mass(old) + mass(emptied.gather(2, other))
    # The authors' L1 lets each channel spend its mass `channels` times over; the projection settles the account.
    owned = left / channels + owned if power == 2 else left + channels * owned
    heap = _heaps(high, wide, power, x.dtype, x.device)[rng.fold("cut").integers(2)].view(n, 1, -1)
    new = rng.fold("sign").sign(channels, 1, dtype=x.dtype) * heap + old / _floor(mass(old) ** (1 / power))
    new = new / _floor(mass(new) ** (1 / power)) * owned ** (1 / power)
    change = emptied.scatter(2, other, 0.0).scatter(2, one, new)
    return _spend(p, change.view_as(x))


def _spend(p: Problem, change: Tensor) -> Inputs:
    """x + change inside the threat model; on L2 stretched to the whole budget first, as the authors do."""
    change = p.threat.free(change.reshape(p.x.shape))
    if isinstance(p.threat, L2):
        change = unit(change) * per_row(p.threat.budget(p.x), change)
    return p.project(p.x + change)


def _power(p: Problem) -> int:
    return 2 if isinstance(p.threat, L2) else 1


def _floor(v: Tensor) -> Tensor:
    return v.clamp_min(torch.finfo(v.dtype).tiny)


@lru_cache(maxsize=64)
def _heaps(high: int, wide: int, power: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A heap up and a heap down in one window, of unit norm, cut across its rows or its columns: (2, high, wide)."""

    def heap(rows: int, columns: int) -> Tensor:
        # Centred boxes, each one entry larger on every side, weigh 1, 1/4, 1/9, ... (on L1 to the fourth power).
        far = [(torch.arange(k) - k // 2).abs() for k in (rows, columns)]
        boxes = torch.arange(1.0, max(rows, columns) // 2 + 2, dtype=torch.float64) ** (-2.0 if power == 2 else -4.0)
        pile = boxes.flip(0).cumsum(0).flip(0)[torch.maximum(far[0][:, None], far[1])]
        return pile / pile.norm(p=power)

    def pair(rows: int, columns: int) -> Tensor:
        both = torch.cat([heap(rows // 2, columns), -heap(rows - rows // 2, columns)])
        return both / both.norm(p=power)

    cuts = [pair(high, wide), pair(wide, high).T]
    if min(high, wide) == 1:  # too thin to be cut along
        cuts = [cuts[int(wide > high)]] * 2
    return torch.stack(cuts).to(device, dtype)
