"""What is traded for what: which points nothing beats, which of them to take, and models between two models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from adamant._types import Inputs
from adamant.errors import InputError

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@final
@dataclass(frozen=True)
class Point:
    """One model on the plane of clean and robust accuracy."""

    clean: float
    robust: float


def front(points: Sequence[Point]) -> tuple[int, ...]:
    """The places of the points that no other beats in one figure without losing in the other, by clean accuracy."""
    beaten = [any(q.clean >= p.clean and q.robust >= p.robust and q != p for q in points) for p in points]
    return tuple(sorted((i for i, out in enumerate(beaten) if not out), key=lambda i: points[i].clean))


def choose(points: Sequence[Point], least_clean: float | None = None) -> int:
    """The place of the most robust point with at least so much clean accuracy; without a least, of the largest sum.

    Raises InputError where no point is clean enough.
    """
    if least_clean is None:
        return max(range(len(points)), key=lambda i: (points[i].clean + points[i].robust, points[i].robust))
    fit = [i for i, p in enumerate(points) if p.clean >= least_clean]
    if not fit:
        best = max(p.clean for p in points)
        raise InputError(f"No model is right on {least_clean:.1%} of the clean rows: the best is right on {best:.1%}.")
    return max(fit, key=lambda i: (points[i].robust, points[i].clean))


def between(one: nn.Module, other: nn.Module, share: float, into: nn.Module, rows: Inputs) -> None:
    """Weights a share of the way from one model to another of the same ancestor, into a third of the same kind.

    Model soups (Wortsman et al., 2022, arXiv:2203.05482; Croce et al., 2023, arXiv:2302.10164). Statistics of batches
    do not mix: they are gathered anew on the rows given (n, *d). Raises InputError for models of different kinds.
    """
    first, second = one.state_dict(), other.state_dict()
    if {k: v.shape for k, v in first.items()} != {k: v.shape for k, v in second.items()}:
        raise InputError("Only models of the same architecture have models between them.")
    mixed: dict[str, Tensor] = {
        k: torch.lerp(v, second[k], share) if v.is_floating_point() else v for k, v in first.items()
    }
    into.load_state_dict(mixed)
    norms = [m for m in into.modules() if isinstance(m, _NORMS)]
    if not norms:
        into.eval()
        return
    before = [m.momentum for m in norms]
    for m in norms:
        m.reset_running_stats()
        m.momentum = None  # the plain mean over the batches
    into.eval()
    for m in norms:
        m.train()
    with torch.no_grad():
        for part in rows.split(256):
            into(part)
    for m, momentum in zip(norms, before, strict=True):
        m.momentum = momentum
    into.eval()
