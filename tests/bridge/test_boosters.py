"""Classifiers of XGBoost and LightGBM, by their scikit-learn interface and as Boosters: raw scores, and no gradient."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import adamant as am
from adamant.access import Sight, sight
from adamant.errors import InputError, ModelError

DIGITS = load_digits()
SHADES, LABELS = DIGITS.data[:400] / 16, DIGITS.target[:400]
ASKED = torch.from_numpy(DIGITS.data[400:440] / 16).view(-1, 1, 8, 8)


@pytest.fixture
def xgboost():
    return pytest.importorskip("xgboost", reason="an optional framework")


@pytest.fixture
def lightgbm():
    return pytest.importorskip("lightgbm", reason="an optional framework")


def labels_of(classes):
    return LABELS if classes == 10 else (LABELS > 4).astype(int)


@pytest.mark.parametrize("classes", [2, 10])
def test_xgboost_shows_margins(classes, xgboost):
    estimator = xgboost.XGBClassifier(n_estimators=4, n_jobs=1).fit(SHADES, labels_of(classes))
    model, booster = am.load_model(estimator), am.load_model(estimator.get_booster())
    assert sight(model) == sight(booster) == Sight.SCORES
    p = estimator.predict_proba(ASKED.flatten(1).numpy())
    assert np.allclose(model(ASKED).softmax(1).numpy(), p, atol=1e-5)
    assert torch.equal(model(ASKED), booster(ASKED))
    with pytest.raises(ModelError, match="fitted on 64 features"):
        booster(torch.rand(2, 9))


def test_a_regression_of_xgboost_is_refused(xgboost):
    made = xgboost.XGBRegressor(n_estimators=1, n_jobs=1).fit(SHADES, LABELS)
    with pytest.raises(InputError, match="reg:squarederror, which is no classification"):
        am.load_model(made.get_booster())
    with pytest.raises(InputError, match="is no classifier"):
        am.load_model(made)


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_lightgbm_shows_raw_scores(classes, lightgbm):
    estimator = lightgbm.LGBMClassifier(n_estimators=4, n_jobs=1, verbose=-1).fit(SHADES, labels_of(classes))
    model, booster = am.load_model(estimator), am.load_model(estimator.booster_)
    assert sight(model) == sight(booster) == Sight.SCORES
    p = estimator.predict_proba(ASKED.flatten(1).numpy())
    assert np.allclose(model(ASKED).softmax(1).numpy(), p, atol=1e-5)
    assert torch.equal(model(ASKED), booster(ASKED))


def test_a_regression_of_lightgbm_is_refused(lightgbm):
    made = lightgbm.LGBMRegressor(n_estimators=1, n_jobs=1, verbose=-1).fit(SHADES, LABELS)
    with pytest.raises(InputError, match="regression, no classification"):
        am.load_model(made.booster_)
    with pytest.raises(InputError, match="is no classifier"):
        am.load_model(made)


def test_an_attack_by_scores_breaks_it_and_is_refused_with_gradients(xgboost):
    estimator = xgboost.XGBClassifier(n_estimators=9, n_jobs=1).fit(SHADES, LABELS)
    x, y = ASKED.float(), torch.from_numpy(DIGITS.target[400:440])
    model = am.load_model(estimator)
    out = am.attack(am.Square(steps=100), model, x, y, am.Linf(0.1))
    assert out.broken.sum() > 10
    assert (estimator.predict(out.x_adv[out.broken].flatten(1).numpy()) != y[out.broken].numpy()).all()
    with pytest.raises(am.AdamantError, match="PGD needs the gradient and this model shows the scores only"):
        am.attack(am.PGD(), model, x, y, am.Linf(0.1))
