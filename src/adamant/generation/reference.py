"""What made rows are measured against: real ones, with the floor and the ceiling of every figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from adamant.data import DataSet
from adamant.generation.judge import Judge
from adamant.generation.measures import Likeness, likeness
from adamant.random import Rng, permutation

ROWS = 2000  # more make the figures steadier, and the distances between all pairs slower


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """Held-out rows as the judge sees them, beside training rows (the floor) and noise (the ceiling)."""

    judge: Judge
    real: Tensor  # (n f) features of held-out rows
    floor: Likeness  # of as many training rows: nothing that is made can be expected to be nearer
    ceiling: Likeness  # of uniform noise, for vectors of normal noise with mean and spread of the data

    @staticmethod
    def of(judge: Judge, data: DataSet, held_out: DataSet, rows: int = ROWS) -> Reference:
        """Measured on at most so many rows, drawn once and for all."""
        n = min(rows, len(held_out), len(data))
        real, _ = judge.look(held_out.x[permutation(len(held_out), 0, "reference")[:n]])
        seen, _ = judge.look(data.x[permutation(len(data), 0, "floor")[:n]])
        noise, _ = judge.look(_noise(data.x, n))
        return Reference(judge=judge, real=real, floor=likeness(real, seen), ceiling=likeness(real, noise))

    @property
    def rows(self) -> int:
        """How many rows are to be made: as many as are compared with."""
        return len(self.real)


def _noise(x: Tensor, n: int) -> Tensor:
    rng = Rng.of(0, n).fold("noise")
    if x.ndim == 4:
        return rng.uniform(*x.shape[1:])
    return x.mean(0) + x.std(0) * rng.normal(*x.shape[1:])
