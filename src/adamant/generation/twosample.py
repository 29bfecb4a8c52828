"""Whether two samples are of one distribution: the energy distance, with a p-value by permutations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from adamant.errors import InputError
from adamant.random import Rng

_MOST = 8000  # rows of both together: the distances of all pairs are held at once


@final
@dataclass(frozen=True, kw_only=True)
class TwoSample:
    """What the test saw; `p` is uniform on (0, 1] where both samples are of one distribution."""

    distance: float  # in the unit of the rows; 0 where the samples are the same
    share: float  # of twice the mean distance between the samples, from 0 to 1; does not grow with the rows
    p: float
    rows: tuple[int, int]
    permutations: int

    def passed(self, level: float = 0.05) -> bool:
        """Whether the test sees no difference at this level."""
        return self.p > level


def energy_test(
    a: Tensor, b: Tensor, *, part: Tensor | None = None, permutations: int = 199, seed: int = 0
) -> TwoSample:
    """The energy distance 2 E|A-B| - E|A-A'| - E|B-B'| of rows a (n d) and b (m d), and how seldom chance exceeds it.

    Székely & Rizzo, 2013, doi:10.1016/j.jspi.2013.03.018. Rows are exchanged `permutations` times: p is the share of
    the exchanges, the given order counted as one, whose distance is at least as large. A test sees what its rows let it
    see: say how many there were. With `part` (n,), row i of both is of part i: only such pairs are exchanged, and no
    distances between parts count, so that a part in the place of another is seen. Raises InputError for rows that are
    no numbers, too few, too many, or of two lengths.
    """
    _check(a, b, part, permutations)
    n, m = len(a), len(b)
    rows = torch.cat([a.flatten(1), b.flatten(1)]).double()
    apart = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    beside = apart.new_ones(()) if part is None else (torch.cat([part, part])[:, None] == torch.cat([part, part]))
    apart = apart * beside
    # With weights 1/n on a and -1/m on b the distance is a quadratic form, and one product does all exchanges.
    weight = torch.cat([rows.new_full((n,), 1 / n), rows.new_full((m,), -1 / m)])
    rng = Rng.of(seed, permutations).fold("exchange").to(rows.device)
    if part is None:
        exchanged = weight[rng.uniform(n + m, dtype=torch.float64).argsort(1)]
    else:
        exchanged = weight * rng.sign(n, dtype=torch.float64).repeat(1, 2)
    weights = torch.cat([weight[None], exchanged]).T
    distances = -(weights * (apart @ weights)).sum(0)
    distance, across = float(distances[0]), float(apart[:n, n:].mean())
    # A hair of slack: an exchange that is no exchange must count, however its sum was rounded.
    above = int((distances[1:] >= distance - 1e-12 * across).sum())
    return TwoSample(
        distance=max(distance, 0.0),
        share=max(distance, 0.0) / (2 * across) if across else 0.0,
        p=(1 + above) / (1 + permutations),
        rows=(n, m),
        permutations=permutations,
    )


def _check(a: Tensor, b: Tensor, part: Tensor | None, permutations: int) -> None:
    if a.ndim < 2 or b.ndim < 2 or a.shape[1:] != b.shape[1:]:
        raise InputError(f"Two samples have rows of one length, got {tuple(a.shape)} and {tuple(b.shape)}.")
    if min(len(a), len(b)) < 2 or len(a) + len(b) > _MOST:
        raise InputError(
            f"The test takes at least 2 rows of each sample and {_MOST} of both together, got {len(a)} and {len(b)}: "
            "take fewer or more."
        )
    if part is not None and not len(a) == len(b) == len(part):
        raise InputError(f"With parts, rows stand in pairs: got {len(a)} and {len(b)} rows and {len(part)} parts.")
    if permutations < 19:
        raise InputError(f"With {permutations} permutations no p reaches 0.05; take at least 19.")
    for name, rows in (("first", a), ("second", b)):
        odd = (~rows.isfinite()).flatten(1).any(1).nonzero()
        if len(odd):
            raise InputError(f"Row {int(odd[0])} of the {name} sample holds NaN or an infinity; mend or drop it.")
