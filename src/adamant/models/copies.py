"""Exact copies in torch of estimators of scikit-learn, from what they learned; in float64, as they compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adamant.errors import ModelError

_LINEAR = (
    "LogisticRegression", "LogisticRegressionCV", "LinearSVC", "SGDClassifier", "RidgeClassifier", "RidgeClassifierCV",
    "Perceptron", "PassiveAggressiveClassifier", "LinearDiscriminantAnalysis",
)  # fmt: skip
TIES = (
    "An SVC of several classes is taken by its decision_function, as with break_ties=True: where two classes have as "
    "many votes, its predict takes the first of them, and may say another label."
)
_ACTS: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity, "logistic": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU,
}  # fmt: skip


def copied(held: Any, classes: int) -> nn.Module | None:
    """The estimator, or the pipeline, as a torch module from inputs (n *d) to logits (n k); None where there is none.

    Of several classes an SVC scores as its `decision_function` with the shape ovr does: the wins among pairs, and
    between equals their distances; its `predict` takes the first of equals.
    """
    steps = [step for _, step in held.steps] if hasattr(held, "steps") else [held]
    if not hasattr(held, "n_features_in_"):
        return None
    parts: list[nn.Module] = [Features(int(held.n_features_in_), type(held).__name__)]
    for step in steps[:-1]:
        if step is None or step == "passthrough":
            continue
        made = _copy(step, _TRANSFORMS)
        if made is None:
            return None
        parts.append(made)
    last = _copy(steps[-1], _CLASSIFIERS)
    if last is None:
        return None
    binary: list[nn.Module] = [Two()] if classes == 2 else []
    return nn.Sequential(*parts, last, *binary)


def _copy(step: Any, makers: dict[str, Callable[[Any], nn.Module | None]]) -> nn.Module | None:
    """Of scikit-learn's own classes only: one that derives from them may compute something else."""
    kind = type(step)
    maker = makers.get(kind.__name__) if kind.__module__.partition(".")[0] == "sklearn" else None
    return maker(step) if maker else None


class Features(nn.Module):
    """Rows (n *d) flattened to (n f) in float64; raises `ModelError` where the estimator was fitted on another f."""

    def __init__(self, features: int, name: str) -> None:
        super().__init__()
        self.features, self.name = features, name

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1)
        if rows.shape[1] != self.features:
            raise ModelError(
                f"{self.name} was fitted on {self.features} features, and an input of shape {tuple(x.shape[1:])} has "
                f"{rows.shape[1]}: give the data as they were when it was fitted."
            )
        return rows.double()


class Two(nn.Module):
    """One score z of class 1 (n 1) as the logits [0, z]."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(z), z], 1)


class Affine(nn.Module):
    """`x * scale + shift`, clipped where bounds are given; or divided by the norm of the row."""

    def __init__(self, scale: Any, shift: Any, bounds: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", _tensor(scale))
        self.register_buffer("shift", _tensor(shift))
        self.bounds = bounds

    def forward(self, x: Tensor) -> Tensor:
        z = x * self.scale + self.shift
        return z.clamp(*self.bounds) if self.bounds else z


class UnitRows(nn.Module):
    """Each row divided by its norm, where that is not zero."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        self.p = {"l1": 1.0, "l2": 2.0, "max": float("inf")}[norm]

    def forward(self, x: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, self.p, dim=1, keepdim=True)
        return x / torch.where(size == 0, torch.ones_like(size), size)


class Chosen(nn.Module):
    """Some of the features."""

    def __init__(self, kept: Any) -> None:
        super().__init__()
        self.kept: Tensor
        self.register_buffer("kept", torch.from_numpy(np.flatnonzero(kept)))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.kept]


class Kernel(nn.Module):
    """Support vectors and a kernel; the scores of an SVC (Chang & Lin, 2011, doi:10.1145/1961189.1961199).

    Of two classes one score (n 1); of more the pairs' wins and, between equals, their summed distances, as
    scikit-learn's `decision_function` of the shape ovr adds them up (n k).
    """

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.kernel, self.gamma = str(held.kernel), float(held._gamma)
        self.degree, self.coef0 = float(held.degree), float(held.coef0)
        self.classes = len(held.classes_)
        self.vectors: Tensor
        self.duals: Tensor
        self.bias: Tensor
        self.register_buffer("vectors", _tensor(held.support_vectors_))
        self.register_buffer("duals", _tensor(_pairs_of(held)))
        self.register_buffer("bias", _tensor(held.intercept_))

    @property
    def notes(self) -> tuple[str, ...]:
        """That classes with as many votes are told apart by their scores."""
        return (TIES,) if self.classes > 2 else ()

    def forward(self, x: Tensor) -> Tensor:
        pairs = self._kernel(x) @ self.duals + self.bias  # of classes i < j, above zero for i
        return pairs if self.classes == 2 else self._votes(pairs)

    def _kernel(self, x: Tensor) -> Tensor:
        inner = x @ self.vectors.T
        if self.kernel == "linear":
            return inner
        if self.kernel == "rbf":
            far = (x**2).sum(1, keepdim=True) + (self.vectors**2).sum(1) - 2 * inner
            return (-self.gamma * far).exp()
        z = self.gamma * inner + self.coef0
        return z.tanh() if self.kernel == "sigmoid" else z**self.degree

    def _votes(self, pairs: Tensor) -> Tensor:
        i, j = torch.triu_indices(self.classes, self.classes, 1, device=pairs.device)
        none = pairs.new_zeros(len(pairs), self.classes)
        won = (pairs >= 0).to(pairs.dtype)
        votes = none.index_add(1, i, won).index_add(1, j, 1 - won)
        total = none.index_add(1, i, pairs).index_add(1, j, -pairs)
        return votes + total / (3 * (total.abs() + 1))


def _pairs_of(held: Any) -> Any:
    """The weight of each support vector in each pair of classes, (vectors, pairs)."""
    duals, classes = np.asarray(held.dual_coef_), len(held.classes_)
    if classes == 2:
        return duals.T
    owner = np.repeat(np.arange(classes), held.n_support_)
    columns = [
        np.where(owner == i, duals[j - 1], np.where(owner == j, duals[i], 0.0))
        for i in range(classes)
        for j in range(i + 1, classes)
    ]
    return np.stack(columns, 1)


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float64))


def _layer(weight: Any, bias: Any) -> nn.Linear:
    """`weight` (out, in)."""
    held = _tensor(weight)
    layer = nn.Linear(held.shape[1], held.shape[0], dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(held)
        layer.bias.copy_(_tensor(np.broadcast_to(bias, (len(held),))))
    return layer


def _linear(held: Any) -> nn.Module:
    coef = held.coef_.toarray() if hasattr(held.coef_, "toarray") else held.coef_
    return _layer(np.atleast_2d(coef), held.intercept_)


def _perceptron(held: Any) -> nn.Module:
    parts: list[nn.Module] = []
    for weight, bias in zip(held.coefs_, held.intercepts_, strict=True):
        parts += [_layer(weight.T, bias), _ACTS[held.activation]()]
    return nn.Sequential(*parts[:-1])


def _svc(held: Any) -> nn.Module | None:
    if held.kernel not in ("linear", "rbf", "poly", "sigmoid") or hasattr(held.dual_coef_, "toarray"):
        return None
    return Kernel(held)


def _standard(held: Any) -> nn.Module:
    scale = 1 / np.asarray(1.0 if held.scale_ is None else held.scale_)
    return Affine(scale, -scale * (held.mean_ if held.with_mean else 0.0))


def _min_max(held: Any) -> nn.Module:
    low, high = held.feature_range
    return Affine(held.scale_, held.min_, (float(low), float(high)) if held.clip else None)


def _max_abs(held: Any) -> nn.Module | None:
    return None if getattr(held, "clip", False) else Affine(1 / held.scale_, 0.0)


def _robust(held: Any) -> nn.Module:
    scale = 1 / np.asarray(1.0 if held.scale_ is None else held.scale_)
    return Affine(scale, -scale * (0.0 if held.center_ is None else held.center_))


def _pca(held: Any) -> nn.Module:
    rows = np.asarray(held.components_, dtype=np.float64)
    if getattr(held, "whiten", False):
        size = np.sqrt(held.explained_variance_)
        rows = rows / np.maximum(size, np.finfo(size.dtype).eps)[:, None]
    mean = getattr(held, "mean_", None)
    return _layer(rows, 0.0 if mean is None else -rows @ mean)


_CLASSIFIERS: dict[str, Callable[[Any], nn.Module | None]] = {
    **dict.fromkeys(_LINEAR, _linear), "MLPClassifier": _perceptron, "SVC": _svc, "NuSVC": _svc,
}  # fmt: skip
_TRANSFORMS: dict[str, Callable[[Any], nn.Module | None]] = {
    "StandardScaler": _standard, "MinMaxScaler": _min_max, "MaxAbsScaler": _max_abs, "RobustScaler": _robust,
    "PCA": _pca, "TruncatedSVD": _pca, "Normalizer": lambda held: UnitRows(held.norm),
    **dict.fromkeys(("VarianceThreshold", "SelectKBest", "SelectPercentile", "SelectFromModel"),
                    lambda held: Chosen(held.get_support())),
}  # fmt: skip
