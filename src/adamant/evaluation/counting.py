"""Shares with their 95 % intervals."""

from __future__ import annotations

from typing import Any

from scipy.stats import binomtest


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
