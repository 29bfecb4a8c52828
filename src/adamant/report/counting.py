"""Wilson's interval for one share; what compares two models is in `evaluation.counting`."""

from math import sqrt

from adamant.evaluation.counting import Z


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
