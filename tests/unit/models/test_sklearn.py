"""Estimators of scikit-learn: exact copies answer and slope as the estimator does; the rest shows what it has."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC, NuSVC

import adamant as am
from adamant.access import Sight, sight
from adamant.errors import InputError, ModelError
from adamant.models import BlackBox, as_logits

DIGITS = load_digits()
SHADES, LABELS = DIGITS.data[:400] / 16, DIGITS.target[:400]
ASKED = torch.from_numpy(DIGITS.data[400:440] / 16 + 0.01).view(-1, 1, 8, 8)

LINEAR = [
    LogisticRegression(max_iter=40), LinearSVC(), SGDClassifier(), RidgeClassifier(), LinearDiscriminantAnalysis(),
]  # fmt: skip
KERNELS = [
    SVC(), SVC(kernel="linear", C=0.1), SVC(kernel="poly", coef0=0.5), SVC(kernel="sigmoid", gamma=0.01), NuSVC(nu=0.1),
]  # fmt: skip
NETS = [MLPClassifier((9, 7), activation=a, max_iter=9) for a in ("relu", "tanh", "logistic", "identity")]
PIPES = [
    make_pipeline(StandardScaler(), PCA(12, whiten=True), SVC()),
    make_pipeline(MinMaxScaler((0.1, 0.9), clip=True), VarianceThreshold(1e-4), LogisticRegression(max_iter=40)),
    make_pipeline(RobustScaler(with_centering=False), "passthrough", PCA(9), RidgeClassifier()),
    make_pipeline(MaxAbsScaler(), Normalizer("l1"), TruncatedSVD(9), LinearSVC()),
    make_pipeline(StandardScaler(with_mean=False), SelectKBest(k=20), Normalizer(), SGDClassifier()),
]
COPIED = [*LINEAR, *KERNELS, *NETS, *PIPES]
NAMED = [str(type(getattr(e, "steps", [("", e)])[0][1]).__name__) + str(i) for i, e in enumerate(COPIED)]


def fitted(estimator, labels=LABELS):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few iterations
        return estimator.fit(SHADES, labels)


def theirs(estimator, x):
    """What scikit-learn answers, as differences to class 0."""
    rows = x.reshape(len(x), -1).numpy()
    if hasattr(estimator, "decision_function"):
        scores = np.asarray(estimator.decision_function(rows))
        return scores if scores.ndim == 1 else scores[:, 1:] - scores[:, :1]
    logs = estimator.predict_log_proba(rows)
    return (logs[:, 1] - logs[:, 0]) if logs.shape[1] == 2 else logs[:, 1:] - logs[:, :1]


def ours(model, x):
    logits = model(x)
    return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 1:] - logits[:, :1]


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("estimator", COPIED, ids=NAMED)
def test_a_copy_answers_and_slopes_as_the_estimator(estimator, classes):
    fitted(estimator, LABELS if classes == 10 else LABELS > 4)
    model = am.load_model(estimator)
    assert sight(model) == Sight.GRADIENT
    assert not model.training
    with torch.no_grad():
        assert np.allclose(ours(model, ASKED).numpy(), theirs(estimator, ASKED), rtol=1e-6, atol=1e-6)
        single = model(ASKED.float())
    assert single.dtype == torch.float64
    assert torch.allclose(single, model(ASKED), atol=1e-4)
    x = ASKED[:3].clone().requires_grad_(True)
    weights = torch.linspace(-1, 2, classes, dtype=torch.float64)[1:]
    out = ours(model, x).view(3, -1)
    grad = torch.autograd.grad((out * weights).sum(), x)[0].flatten(1)
    h = 1e-5
    for i in range(0, 64, 5):
        step = torch.zeros(64, dtype=torch.float64)
        step[i] = h
        up, down = (
            theirs(estimator, ASKED[:3] + sign * step.view(1, 1, 8, 8)).reshape(3, -1) @ weights.numpy()
            for sign in (1, -1)
        )
        assert np.allclose((up - down) / (2 * h), grad[:, i].numpy(), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(8, random_state=0),
        KNeighborsClassifier(),
        make_pipeline(StandardScaler(), PowerTransformer(), LogisticRegression(max_iter=30)),
        make_pipeline(FunctionTransformer(np.sqrt), LinearSVC()),
        SVC(kernel=lambda a, b: a @ b.T, break_ties=True),
    ],
    ids=["forest", "neighbours", "power", "function", "own kernel"],
)
def test_what_has_no_copy_shows_its_scores(estimator):
    fitted(estimator)
    model = am.load_model(estimator)
    assert isinstance(model, BlackBox)
    assert sight(model) == Sight.SCORES
    rows = ASKED.flatten(1).numpy()
    said = estimator.predict(rows)
    assert np.array_equal(model(ASKED).argmax(1).numpy(), said)
    assert model.queries == len(ASKED)
    if hasattr(estimator, "predict_proba") and not hasattr(estimator, "decision_function"):
        assert np.allclose(model(ASKED).exp().numpy(), estimator.predict_proba(rows))
    else:
        assert np.allclose(ours(model, ASKED).numpy(), theirs(estimator, ASKED))


class Nearest(ClassifierMixin, BaseEstimator):
    """The class of the nearest mean, and no scores."""

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        self.means_ = np.stack([x[y == c].mean(0) for c in self.classes_])
        self.n_features_in_ = x.shape[1]
        return self

    def predict(self, x):
        return self.classes_[((x[:, None] - self.means_) ** 2).sum(2).argmin(1)]


def test_what_has_no_scores_shows_labels_which_may_be_words():
    words = np.array(list("zyxwvutsrq"))
    estimator = Nearest().fit(SHADES, words[LABELS])
    model = am.load_model(estimator)
    assert sight(model) == Sight.LABELS
    said = np.asarray(estimator.classes_)[model(ASKED).argmax(1).numpy()]
    assert np.array_equal(said, estimator.predict(ASKED.flatten(1).numpy()))


class Bent(LogisticRegression):
    """One that derives from a known class, and computes something else."""

    def decision_function(self, X):
        return -super().decision_function(X)


def test_a_class_of_ones_own_is_asked_and_not_copied():
    estimator = fitted(Bent(max_iter=40))
    model = am.load_model(estimator)
    assert isinstance(model, BlackBox)
    assert np.allclose(ours(model, ASKED).numpy(), theirs(estimator, ASKED))


def test_a_copy_that_does_not_agree_is_not_used():
    estimator = fitted(LogisticRegression(max_iter=40))
    estimator.decision_function = lambda x: 3 * LogisticRegression.decision_function(estimator, x)
    model = am.load_model(estimator)
    assert isinstance(model, BlackBox)
    assert model.queries == 0


def test_an_svc_that_scores_pairs_is_taken_as_one_that_scores_classes():
    pairs, classes = fitted(SVC(decision_function_shape="ovo")), fitted(SVC())
    model = am.load_model(make_pipeline(pairs))
    assert torch.equal(model(ASKED), am.load_model(classes)(ASKED))
    assert pairs.decision_function_shape == "ovo"
    assert "break_ties" in as_logits(model, ASKED)[1][0]


def test_the_best_of_a_search_is_taken():
    search = fitted(GridSearchCV(LogisticRegression(max_iter=30), {"C": [0.1, 1.0]}, cv=2))
    assert sight(am.load_model(search)) == Sight.GRADIENT


@pytest.mark.parametrize(
    ("held", "why"),
    [
        (LogisticRegression(), "LogisticRegression is not fitted: call fit first"),
        (fitted(LinearRegression()), "LinearRegression is no classifier"),
        (IsolationForest(n_estimators=2).fit(SHADES), "is no classifier"),
        (NearestNeighbors().fit(SHADES), "has no predict"),
        (
            fitted(MultiOutputClassifier(LogisticRegression(max_iter=9)), np.stack([LABELS, LABELS], 1)),
            "several labels",
        ),
        (fitted(MLPClassifier((4,), max_iter=2), np.stack([LABELS > 4, LABELS > 2], 1)), "several labels"),
    ],
)
def test_what_is_no_fitted_classifier_is_refused(held, why):
    with pytest.raises((InputError, ModelError), match=why):
        am.load_model(held)


@pytest.mark.parametrize("estimator", [LogisticRegression(max_iter=9), KNeighborsClassifier()])
def test_inputs_of_another_size_are_refused(estimator):
    model = am.load_model(fitted(estimator))
    with pytest.raises(ModelError, match=r"fitted on 64 features, and an input of shape \(1, 9, 9\) has 81"):
        model(torch.rand(2, 1, 9, 9))


def test_a_copy_can_be_attacked_through_its_gradient_and_breaks_the_estimator():
    estimator = fitted(LogisticRegression(max_iter=100))
    x, y = ASKED.float().clamp(0, 1), torch.from_numpy(DIGITS.target[400:440])
    out = am.attack(am.PGD(steps=10), am.load_model(estimator), x, y, am.Linf(0.15))
    assert out.broken.sum() > 10
    fooled = estimator.predict(out.x_adv[out.broken].flatten(1).numpy()) != y[out.broken].numpy()
    assert fooled.all()


@pytest.mark.parametrize("name", ["model.pkl", "model.joblib", "a/b.pickle"])
def test_a_pickle_is_not_opened(name, tmp_path):
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"can run any code while it is loaded.*my_model:load"):
        am.load_model(tmp_path / name if name == "model.pkl" else name)


def test_a_function_that_returns_an_estimator_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept_estimator.py").write_text(
        "from sklearn.datasets import load_digits\nfrom sklearn.naive_bayes import GaussianNB\n"
        "def load():\n    return GaussianNB().fit(*load_digits(return_X_y=True))\nheld = load()\n"
    )
    for spec in ("kept_estimator:load", "kept_estimator:held"):
        assert sight(am.load_model(spec)) == Sight.SCORES
