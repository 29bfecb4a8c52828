"""How far made inputs are from real ones, on the features of a classifier; each figure beside floor and ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from adamant.errors import InputError


def frechet(a: Tensor, b: Tensor) -> float:
    """Between normal laws with the means and covariances of two sets of features (n d), (m d), in float64.

    |mean difference|^2 + trace(A + B - 2 (A B)^(1/2)) (Heusel et al., 2017, arXiv:1706.08500). The root's trace is
    taken from the eigenvalues of A^(1/2) B A^(1/2), which is symmetric, so that nothing becomes complex.
    """
    _check(a, b)
    a, b = a.double(), b.double()
    between = (a.mean(0) - b.mean(0)).square().sum()
    one, other = torch.cov(a.T).reshape(a.shape[1], -1), torch.cov(b.T).reshape(a.shape[1], -1)
    root = _root(one)
    shared = torch.linalg.eigvalsh(root @ other @ root).clamp_min(0).sqrt().sum()
    return max(0.0, float(between + one.trace() + other.trace() - 2 * shared))


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


@final
@dataclass(frozen=True, kw_only=True)
class Manifold:
    """Four shares that say what a distance hides: are made rows credible, and are all kinds of real ones made?"""

    precision: float  # of made rows that lie near some real one
    recall: float  # of real rows that lie near some made one
    density: float  # how many real neighbourhoods a made row lies in, over k; about 1 where the sets are alike
    coverage: float  # of real rows whose neighbourhood holds a made one


def manifold(real: Tensor, made: Tensor, k: int = 5) -> Manifold:
    """Of features (n d), (m d); a neighbourhood of a row reaches to its k-th neighbour of its own set.

    Precision and recall: Kynkaanniemi et al. (2019, arXiv:1904.06991); density and coverage: Naeem et al. (2020,
    arXiv:2002.09797). Raises InputError where a set has no k + 1 rows.
    """
    _check(real, made)
    if min(len(real), len(made)) <= k:
        raise InputError(f"{k} neighbours need more than {k} rows in each set, got {len(real)} and {len(made)}.")
    real, made = real.double(), made.double()
    around_real, around_made = _reach(real, k), _reach(made, k)
    apart = torch.cdist(real, made)
    inside = apart <= around_real[:, None]
    return Manifold(
        precision=float(inside.any(0).double().mean()),
        recall=float((apart <= around_made).any(1).double().mean()),
        density=float(inside.sum()) / (k * len(made)),
        coverage=float(inside.any(1).double().mean()),
    )


def _reach(x: Tensor, k: int) -> Tensor:
    """How far the k-th neighbour of each row lies, the row itself not counted."""
    return torch.cdist(x, x).fill_diagonal_(0).kthvalue(k + 1, 1).values


def entropy(y: Tensor, classes: int) -> float:
    """Of how the labels are spread, over its largest value: 1 where all classes are alike, 0 where there is but one."""
    share = torch.bincount(y, minlength=classes).double() / max(1, len(y))
    return float(-torch.special.xlogy(share, share).sum() / torch.tensor(float(classes)).log()) if classes > 1 else 1.0


def modes(y: Tensor, classes: int, least: float = 0.01) -> int:
    """How many classes have that share of the labels at least."""
    return int((torch.bincount(y, minlength=classes).double() >= least * max(1, len(y))).sum())


def nearest(x: Tensor, among: Tensor, chunk: int = 256) -> Tensor:
    """The Euclidean distance from each row (n *d) to the nearest of the others (m *d): (n,)."""
    rows, others = x.flatten(1), among.flatten(1)
    # By matrix products cdist finds the neighbour; its distance it knows to a hundredth, where the two are the same.
    near = (others[torch.cdist(part, others).argmin(1)] for part in rows.split(chunk))
    return torch.cat([(part - other).norm(dim=1) for part, other in zip(rows.split(chunk), near, strict=True)])


def copied(made: Tensor, train: Tensor, held_out: Tensor) -> float:
    """The share of made rows that lie nearer to a training row than all but one in a hundred held-out rows do.

    About 0.01 where nothing is memorised; near 1 where the training rows are handed out again, also where held-out rows
    repeat training rows themselves.
    """
    usual = nearest(held_out, train).double().quantile(0.01)
    return float((nearest(made, train).double() <= usual).double().mean())


@final
@dataclass(frozen=True, kw_only=True)
class Likeness:
    """What is measured of one set of rows against real ones."""

    frechet: float
    precision: float
    recall: float
    density: float
    coverage: float


def likeness(real: Tensor, made: Tensor, k: int = 5) -> Likeness:
    """All of it, on features."""
    return Likeness(frechet=frechet(real, made), **vars(manifold(real, made, k)))


def _check(*sets: Tensor) -> None:
    for x in sets:
        if x.ndim != 2 or len(x) < 2 or x.shape[1] != sets[0].shape[1]:
            raise InputError(f"Features are (n d) with at least two rows each, got {_shapes(sets)}.")
        if not bool(x.isfinite().all()):
            raise InputError("Some features are no numbers: look at the inputs, or at the classifier.")


def _shapes(sets: Sequence[Tensor]) -> str:
    return " and ".join(str(tuple(x.shape)) for x in sets)
