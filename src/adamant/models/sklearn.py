"""Estimators of scikit-learn, XGBoost and LightGBM as models: exact copies in torch where there are, else scores."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from adamant.errors import InputError, ModelError
from adamant.models.ask import Ask
from adamant.models.copies import TIES, copied
from adamant.models.scores import BlackBox, LabelsOf, Output, Probabilities, Scores

_AGREE = 1e-6  # how far a copy may be from what it is a copy of, as a share of the largest score
_PROBES = 16
_PICKLED = (
    "is a pickle, or may hold one, and a pickle can run any code while it is loaded, so adamant does not open it. "
    "Where you trust the file, load it in a function of your own that returns the estimator, such as load() in "
    "my_model.py, and name that: my_model:load."
)
PICKLES = (".pkl", ".pickle", ".joblib", ".sav", ".dill", ".cloudpickle")

Numbers = Any  # numpy arrays


def refuse_pickle(spec: str, _: Ask) -> nn.Module:
    """Raise ModelError: what is a pickle is never opened."""
    raise ModelError(f"{spec} {_PICKLED}")


def load_estimator(held: Any, _: Ask) -> nn.Module:
    """A fitted classifier with the interface of scikit-learn; the labels of the data are places in its `classes_`.

    Linear models, MLPClassifier and SVC, also behind scalers and PCA, become exact copies in torch (float64), with
    gradients; what they answer is compared on probes. Any other shows scores only: `decision_function`, else
    `predict_proba`, else, labels only, `predict`. Inputs are flattened (c, h, w), as the estimator must have been
    fitted. Raises `InputError` where it is not fitted, or is no classifier of one label for each row.
    """
    held = _one_score_a_class(getattr(held, "best_estimator_", held))  # the best, of a search over settings
    names = _classes_of(held)
    asked = _asked(held, len(names))
    if len(names) > 2 and type(_last(held)).__name__ in ("SVC", "NuSVC"):
        asked.notes = (TIES,)
    exact = copied(held, len(names))
    return (exact if exact is not None and _agree(exact, asked) else asked).eval()


def load_xgboost(held: Any, _: Ask) -> nn.Module:
    """A classifier of XGBoost, by its scikit-learn interface or as a Booster: raw margins, and no gradient."""
    if type(held).__name__ != "Booster":
        return _margins(held, lambda x: held.predict(x, output_margin=True))
    xgboost = cast(Any, import_module("xgboost"))  # where there is a Booster, it is installed
    objective = str(json.loads(held.save_config())["learner"]["objective"]["name"])
    if not objective.startswith(("binary:", "multi:")):
        raise InputError(f"The Booster was trained for {objective}, which is no classification.")
    features = int(held.num_features())

    def call(x: Numbers) -> Numbers:
        return held.predict(xgboost.DMatrix(x), output_margin=True, validate_features=False)

    return _box(call, features, None, Scores(), "The Booster").eval()


def load_lightgbm(held: Any, _: Ask) -> nn.Module:
    """A classifier of LightGBM, by its scikit-learn interface or as a Booster: raw scores, and no gradient."""
    if type(held).__name__ != "Booster":
        return _margins(held, lambda x: held.predict(x, raw_score=True))
    objective = str(held.dump_model(num_iteration=1).get("objective", ""))
    if not objective.startswith(("binary", "multiclass")):
        raise InputError(f"The Booster was trained for {objective or 'nothing that it names'}, no classification.")

    def call(x: Numbers) -> Numbers:
        return held.predict(x, raw_score=True)

    return _box(call, int(held.num_feature()), None, Scores(), "The Booster").eval()


def _margins(held: Any, raw: Callable[[Numbers], Numbers]) -> nn.Module:
    names = _classes_of(held)
    return _box(raw, _features(held), len(names), Scores(), type(held).__name__).eval()


def _classes_of(held: Any) -> tuple[Any, ...]:
    name = type(held).__name__
    if not hasattr(held, "predict"):
        raise InputError(f"{name} has no predict: give a fitted classifier, or a Pipeline that ends in one.")
    try:
        classes = held.classes_
    except AttributeError:
        kind = getattr(held, "_estimator_type", None)
        why = "is not fitted: call fit first" if kind == "classifier" or _unfitted(held) else "is no classifier"
        raise InputError(f"{name} {why}, or give a function with adamant.models.BlackBox.") from None
    if isinstance(classes, list) or getattr(classes, "ndim", 1) != 1 or _many_labels(held):
        raise InputError(f"{name} gives several labels for each row; adamant attacks classifiers that give one.")
    names = tuple(np.asarray(classes).tolist())
    if len(names) < 2:
        raise InputError(f"{name} was fitted on one class ({names}): it cannot be fooled.")
    return names


def _unfitted(held: Any) -> bool:
    from sklearn.base import is_classifier

    return bool(is_classifier(held))


def _many_labels(held: Any) -> bool:
    last = _last(held)
    several = getattr(last, "out_activation_", "") == "logistic" and getattr(last, "n_outputs_", 1) > 1
    return bool(several or getattr(last, "multilabel_", False))


def _one_score_a_class(held: Any) -> Any:
    """An SVC that scores pairs of classes as one that scores classes; its labels stay the same."""
    last = _last(held)
    if getattr(last, "decision_function_shape", "ovr") != "ovo":
        return held
    last = copy.copy(last)
    last.decision_function_shape = "ovr"
    if not hasattr(held, "steps"):
        return last
    whole = copy.copy(held)
    whole.steps = [*held.steps[:-1], (held.steps[-1][0], last)]
    return whole


def _last(held: Any) -> Any:
    return held.steps[-1][1] if hasattr(held, "steps") else held


def _features(held: Any) -> int | None:
    count = getattr(held, "n_features_in_", None)
    return int(count) if count is not None else None


def _asked(held: Any, classes: int) -> BlackBox:
    """The estimator's own answers: its scores where it has any, else its labels."""
    name = type(held).__name__
    if hasattr(held, "decision_function"):
        return _box(held.decision_function, _features(held), classes, Scores(), name)
    if hasattr(held, "predict_proba"):
        return _box(held.predict_proba, _features(held), classes, Probabilities(), name)
    return _box(held.predict, _features(held), classes, LabelsOf(_classes_of(held)), name)


def _box(
    call: Callable[[Numbers], Numbers], features: int | None, classes: int | None, output: Output, name: str
) -> BlackBox:
    def flat(x: Numbers) -> Numbers:
        rows = x.reshape(len(x), -1)
        if features is not None and rows.shape[1] != features:
            raise ModelError(_misfit(name, features, x.shape[1:]))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*feature names")  # rows are arrays, whatever it was fitted on
            return call(rows)

    return BlackBox(flat, classes, output=output)


def _misfit(name: str, features: int, shape: tuple[int, ...]) -> str:
    return (
        f"{name} was fitted on {features} features, and an input of shape {tuple(shape)} has {int(np.prod(shape))}: "
        "give the data as they were when it was fitted."
    )


def _agree(exact: nn.Module, asked: BlackBox) -> bool:
    """Whether the copy answers as the estimator does, on random rows of several scales."""
    features = cast(int, exact.get_submodule("0").features)
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.random((_PROBES, features)) * np.repeat([1.0, 16.0, 255.0, -3.0], _PROBES // 4)[:, None])
    with torch.no_grad():
        ours, theirs = exact(x), asked(x).double()
    asked.queries = 0
    if isinstance(asked.output, Probabilities):
        ours, theirs = ours.softmax(1), theirs.exp()
    return ours.shape == theirs.shape and bool((ours - theirs).abs().max() <= _AGREE * max(1.0, theirs.abs().max()))
