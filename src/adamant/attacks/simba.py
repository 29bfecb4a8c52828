"""One direction of a basis after another, there or back: SimBA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Inputs
from adamant.access import Look, Sight
from adamant.attacks.pictures import cosines, picture
from adamant.batch import Rows, per_row, where
from adamant.desk import Problem
from adamant.errors import InputError
from adamant.losses import CrossEntropy, Loss
from adamant.threats import L1, L2, Linf


@final
@dataclass(frozen=True, kw_only=True)
class SimBA:
    """A step along a random direction of an orthonormal basis, or else the opposite step, is kept if it helps.

    Guo et al., 2019, arXiv:1905.07121. The directions are single entries, or, with `low`, cosine waves (SimBA-DCT):
    those whose frequencies are in the lowest share `low` of each axis first, then ever faster ones; with `low=1.0` in
    any order. The authors take 1/8 for pictures of 224 pixels. After the last direction it starts over.
    """

    steps: int = 5000  # looks: one or two for each direction
    rate: float = 0.2  # length of a step, in widths of the box
    low: float | None = None
    loss: Loss = CrossEntropy()
    needs: ClassVar[Sight] = Sight.SCORES
    threats: ClassVar[tuple[type, ...]] = (Linf, L2, L1)  # on L0 no short step takes the place of one taken before

    @dataclass(frozen=True)
    class State(Rows):
        """The try to look at, the best so far and its loss; the directions, how many, and whose turn it is, twice."""

        z: Tensor
        best: Tensor
        loss: Tensor
        order: Tensor
        count: Tensor
        turn: Tensor  # even: there, odd: back; the input itself comes before the first

    def init(self, p: Problem) -> State:
        if self.low is not None and not 0 < self.low <= 1:
            raise InputError(f"low is a share of the frequencies, above 0 and at most 1, got {self.low}.")
        n, entries = len(p.x), p.x[0].numel()
        lottery = p.rng.fold("order").uniform(entries, dtype=torch.float64)
        # Entries that may not change come last, and are never reached; a wave is none of them.
        fixed = p.threat.free(torch.ones_like(p.x)).flatten(1) == 0
        rank = _haste(p.x, self.low).expand(n, -1) if self.low is not None else fixed * 1.0
        count = torch.full((n,), entries, device=p.x.device) if self.low is not None else (~fixed).sum(1).clamp_min(1)
        order = (rank + lottery).argsort(dim=1, stable=True)[:, : max(1, self.steps)]
        bar = torch.full((n,), -torch.inf, dtype=torch.float64, device=p.x.device)
        return self.State(p.x, p.x, bar, order, count.clamp(max=order.shape[1]), torch.full_like(count, -1))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        better = seen.loss.double() > s.loss
        best, loss = where(better, s.z, s.best), torch.where(better, seen.loss.double(), s.loss)
        turn = torch.where(better, s.turn + 2 - s.turn % 2, s.turn + 1)  # the next direction, or the other side
        z = self._try(p, s, best, turn)
        for _ in range(2):  # what leads nowhere, at the edge of the set, is not worth a look
            stuck = (z == best).flatten(1).all(1)
            if not bool(stuck.any()):
                break
            turn = turn + stuck
            z = where(stuck, self._try(p, s, best, turn), z)
        return self.State(z, best, loss, s.order, s.count, turn)

    def _try(self, p: Problem, s: State, best: Inputs, turn: Tensor) -> Inputs:
        which = s.order.gather(1, (turn // 2 % s.count)[:, None]).squeeze(1)
        length = self.rate * p.threat.width * (1 - 2 * (turn % 2)).to(best)
        return p.project(best + per_row(length, best) * (_entry if self.low is None else _wave)(p.x, which))


def _entry(x: Inputs, which: Tensor) -> Inputs:
    return torch.zeros_like(x).flatten(1).scatter(1, which[:, None], 1.0).view(x.shape)


def _wave(x: Inputs, which: Tensor) -> Inputs:
    """A wave in one channel of each picture: the outer product of two rows of the cosine transform."""
    _, channels, rows, columns = picture(x).shape
    down = cosines(rows, x.dtype, x.device)[which // columns % rows]
    across = cosines(columns, x.dtype, x.device)[which % columns]
    channel = torch.arange(channels, device=x.device) == (which // (rows * columns))[:, None]
    return (channel[:, :, None, None] * (down[:, :, None] * across[:, None])[:, None]).view(x.shape)


def _haste(x: Inputs, low: float) -> Tensor:
    """How fast each wave is, (entries,): 0 in the lowest block, then a ring each of a quarter of its width."""
    _, channels, rows, columns = picture(x).shape
    down, across = (torch.arange(k, device=x.device, dtype=torch.float64) / k for k in (rows, columns))
    beyond = (torch.maximum(down[:, None], across) - low).div(low / 4).floor().add(1).clamp_min(0)
    return beyond.flatten().repeat(channels)
