"""The set of inputs that bounds begin with: the range of each entry, and the ball around the row where it says more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from adamant._types import Inputs
from adamant.batch import per_row
from adamant.errors import InputError
from adamant.threats import L1, L2, Linf, Projectable

Interval = tuple[Tensor, Tensor]  # the least and the largest value of each entry


def lowest_of(a: Tensor, interval: Interval) -> Tensor:
    """The least value of a . z, (n, m), for coefficients (n, m, *d), where each entry of z has its interval (n, *d)."""
    low, high = interval
    return times(a, (low + high) / 2) - times(a.abs(), (high - low) / 2)


def times(a: Tensor, v: Tensor) -> Tensor:
    """a . v by row, (n, m), for coefficients (n, m, *d), or (1, m, *d) where they are the same for every row."""
    a, v = a.flatten(2), v.flatten(1)
    return v @ a[0].T if len(a) == 1 else (a @ v[..., None]).squeeze(2)


@final
@dataclass(frozen=True, eq=False)
class Region:
    """All z within a threat model around x, for Linf, L2 and L1: of the last two, ball and box each by itself."""

    x: Inputs
    threat: Linf | L2 | L1
    interval: Interval

    @staticmethod
    def around(x: Inputs, threat: Projectable) -> Region:
        """Raises InputError for a threat model that is no ball, or has no budget."""
        if not isinstance(threat, (Linf, L2, L1)):
            raise InputError(f"Bounds are of the balls Linf, L2 and L1, and {type(threat).__name__} is none of them.")
        reach = threat.budget(x)
        if not bool(reach.isfinite().all()):
            raise InputError(f"Bounds hold within a budget, and {threat!r} has none: give it one.")
        reach = per_row(reach, x)
        # Outward by a rounding unit: a member is judged in float64, where x + eps is what it is.
        low, high = (x - reach).nextafter(x.new_tensor(-torch.inf)), (x + reach).nextafter(x.new_tensor(torch.inf))
        free = threat.free(torch.ones_like(x)) > 0
        return Region(x, threat, (torch.where(free, threat.clip(low), x), torch.where(free, threat.clip(high), x)))

    @property
    def exact(self) -> bool:
        """Whether the interval of each entry says all."""
        return isinstance(self.threat, Linf)

    def lowest(self, a: Tensor) -> Tensor:
        """The least value of a . z over the set, (n, m), for coefficients (n, m, *d); exact for Linf."""
        boxed = lowest_of(a, self.interval)
        if isinstance(self.threat, Linf):
            return boxed
        moving = a if self.threat.mask is None else a * self.threat.free(torch.ones_like(self.x))[:, None]
        length = replace(self.threat, mask=None).dual(moving.flatten(0, 1)).view(moving.shape[:2])
        return boxed.maximum(times(a, self.x) - self.threat.budget(self.x)[:, None] * length)
