"""Shares and paired differences with their 95 % intervals, McNemar's exact test, and quantiles of what fell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, final

from scipy.optimize import brentq
from scipy.stats import binomtest

Z = 1.959963984540054  # the two-sided 95 % point of the normal distribution


@final
@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two models on the same rows: who held where the other failed."""

    rows: int
    both: int
    only_first: int
    only_second: int
    neither: int
    difference: float  # second minus first
    low: float
    high: float
    p: float


def share(correct: int, rows: int) -> dict[str, Any]:
    """Accuracy with Wilson's 95 % interval (Wilson, 1927, doi:10.1080/01621459.1927.10502953)."""
    interval = binomtest(correct, rows).proportion_ci(0.95, method="wilson")
    return {
        "accuracy": correct / rows,
        "low": float(interval.low),
        "high": float(interval.high),
        "correct": correct,
        "rows": rows,
    }


def paired(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """The difference of two shares of the same rows, with Tango's interval and McNemar's exact p."""
    pairs = list(zip(first, second, strict=True))
    only_first, only_second = pairs.count((True, False)), pairs.count((False, True))
    low, high = tango(only_first, only_second, len(pairs))
    return Paired(
        rows=len(pairs),
        both=pairs.count((True, True)),
        only_first=only_first,
        only_second=only_second,
        neither=pairs.count((False, False)),
        difference=(only_second - only_first) / max(1, len(pairs)),
        low=low,
        high=high,
        p=mcnemar(only_first, only_second),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact two-sided p that both do as well (McNemar, 1947, doi:10.1007/BF02295996)."""
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def tango(only_first: int, only_second: int, rows: int) -> tuple[float, float]:
    """The 95 % score interval of the paired difference, second minus first (Tango, 1998, Stat. Med. 17:891-908).

    It holds the differences that a score test does not reject; (-1, 1) where there are no rows.
    """
    if not rows:
        return -1.0, 1.0
    return _lowest(only_first, only_second, rows), -_lowest(only_second, only_first, rows)


def _lowest(b: int, c: int, n: int) -> float:
    found = (c - b) / n
    if found == -1:
        return -1.0

    def above(d: float) -> float:
        """What was found over the difference d, less Z standard errors at d; q is the share of b there, at its best."""
        linear, constant = (2 * n - c + b) * d - b - c, -b * d * (1 - d)
        q = (sqrt(max(0.0, linear * linear - 8 * n * constant)) - linear) / (4 * n)
        return c - b - n * d - Z * sqrt(max(0.0, n * (2 * q + d * (1 - d))))

    # Where the rows agree, what was found is a root as well, and not the one that is meant.
    root: Any = brentq(above, -1.0, found - 1e-12, xtol=1e-14)
    return float(root)


def quantile(fell: Sequence[float], right: int, q: float) -> float | None:
    """What is enough for the share q of `right` rows, of which some fell, in order; None where fewer fell."""
    at = max(math.ceil(q * right) - 1, 0)
    return fell[at] if at < len(fell) else None
