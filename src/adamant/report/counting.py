"""Intervals and tests on counts: Wilson for one share, McNemar and Agresti-Min for two models on the same rows."""

from dataclasses import dataclass
from math import sqrt

from scipy.stats import binomtest

Z = 1.959963984540054  # the two-sided 95 % point of the normal distribution


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


def wilson(correct: int, rows: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927, J. Am. Stat. Assoc. 22); (0, 1) where there are no rows."""
    if rows == 0:
        return 0.0, 1.0
    p, z2 = correct / rows, Z * Z
    middle = (p + z2 / (2 * rows)) / (1 + z2 / rows)
    half = Z * sqrt(p * (1 - p) / rows + z2 / (4 * rows * rows)) / (1 + z2 / rows)
    low = 0.0 if correct == 0 else middle - half  # exact at the ends, where the formula leaves a rounding error
    high = 1.0 if correct == rows else middle + half
    return low, high


def paired(first: list[bool], second: list[bool]) -> Paired:
    """McNemar's exact test (McNemar, 1947, Psychometrika 12) and the 95 % interval of the difference
    (Agresti and Min, 2005, Statistics in Medicine 24: Wald with half a row added to each cell).
    """
    pairs = list(zip(first, second, strict=True))
    both, only_first = pairs.count((True, True)), pairs.count((True, False))
    only_second, neither = pairs.count((False, True)), pairs.count((False, False))
    discordant = only_first + only_second
    p = 1.0 if discordant == 0 else float(binomtest(only_first, discordant, 0.5).pvalue)
    n, b, c = len(pairs) + 2, only_first + 0.5, only_second + 0.5
    middle, half = (c - b) / n, Z * sqrt(b + c - (b - c) ** 2 / n) / n
    return Paired(
        rows=len(pairs),
        both=both,
        only_first=only_first,
        only_second=only_second,
        neither=neither,
        difference=(only_second - only_first) / max(1, len(pairs)),
        low=max(-1.0, middle - half),
        high=min(1.0, middle + half),
        p=p,
    )
