"""Several processes train one model: what they tell each other, so that all of them stand at the same place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, distributed, nn

from adamant.shards import Shard

Versions = dict[str, tuple[int, int]]


def mean(value: float, shard: Shard) -> float:
    """The mean over the processes, which all of them see: one loss that is no number is everybody's."""
    if shard.world == 1:
        return value
    whole = torch.tensor([value], dtype=torch.float64)
    distributed.all_reduce(whole)
    return float(whole) / shard.world


def any_of(flags: Sequence[bool], shard: Shard) -> list[bool]:
    """Each flag, raised where any process raises it."""
    if shard.world == 1:
        return list(flags)
    raised = torch.tensor([int(flag) for flag in flags])
    distributed.all_reduce(raised, distributed.ReduceOp.MAX)
    return [bool(flag) for flag in raised]


def from_first(values: Sequence[float], shard: Shard) -> tuple[float, ...]:
    """The numbers as the first process has them: decisions hang on them."""
    if shard.world == 1:
        return tuple(values)
    held = torch.tensor(list(values), dtype=torch.float64)
    distributed.broadcast(held, 0)
    return tuple(held.tolist())


def level(model: nn.Module, shard: Shard) -> None:
    """Statistics of batches become the mean over the processes, in float64, so that what is equal stays the same."""
    held = [b for b in model.buffers() if b.is_floating_point()]
    if shard.world == 1 or not held:
        return
    whole = torch.cat([b.detach().flatten().double().cpu() for b in held])
    distributed.all_reduce(whole)
    with torch.no_grad():
        for b, part in zip(held, (whole / shard.world).split([b.numel() for b in held]), strict=True):
            b.copy_(part.view_as(b))


def versions(memory: Mapping[str, Tensor]) -> Versions:
    """What tells whether a tensor was written or replaced since."""
    return {name: (id(held), held._version) for name, held in memory.items()}


@final
@dataclass(frozen=True)
class Exchange:
    """What processes remember of rows, brought to all of them.

    A tensor with a dimension as long as the training set is of rows, one as long as the batch is of seats in it: each
    process gives those that it had, bit for bit. Any other that differs is of the whole run, and becomes the mean.
    Every process must create the same names at the same steps.
    """

    rows: Tensor  # of the whole batch; process r has every world-th from r on
    total: int  # rows of the training set
    shard: Shard

    def __call__(self, memory: dict[str, Tensor], before: Versions) -> None:
        """Called after every step, with the versions from before it."""
        if self.shard.world == 1 or not memory:
            return
        names, now = sorted(memory), versions(memory)
        for name, changed in zip(names, any_of([now[n] != before.get(n) for n in names], self.shard), strict=True):
            if changed:
                memory[name] = self._shared(memory[name])

    def _shared(self, held: Tensor) -> Tensor:
        for whose in (self.rows, torch.arange(len(self.rows))):
            size = self.total if whose is self.rows else len(self.rows)
            at = next((d for d, length in enumerate(held.shape) if length == size), None)
            if at is not None:
                return self._given(held, at, whose.to(held.device))
        return self._mean(held)

    def _given(self, held: Tensor, at: int, whose: Tensor) -> Tensor:
        """The places that each process had, as it has them."""
        rank, world = self.shard.rank, self.shard.world
        mine = held.index_select(at, whose[rank::world])
        for r, theirs in enumerate(_gathered(mine, world)):
            held.index_copy_(at, whose[r::world], theirs)
        return held

    def _mean(self, held: Tensor) -> Tensor:
        parts = _gathered(held, self.shard.world)
        if all(torch.equal(part, parts[0]) for part in parts) or not held.is_floating_point():
            return parts[0]
        return torch.stack([part.double() for part in parts]).mean(0).to(held.dtype)


def _gathered(mine: Tensor, world: int) -> list[Tensor]:
    """The tensor of every process, by way of its bytes."""
    data = mine.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    parts = [torch.empty_like(data) for _ in range(world)]
    distributed.all_gather(parts, data)
    return [part.view(mine.dtype).view(mine.shape).to(mine.device) for part in parts]


def finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all entries are numbers, as far as their norms tell."""
    norms = [t.detach().norm() for t in tensors if t.is_floating_point()]
    return not norms or bool(torch.stack([n.float() for n in norms]).isfinite().all())
