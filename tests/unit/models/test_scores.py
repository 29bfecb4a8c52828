"""Models that show scores or labels only: what comes out, what is counted, and what is refused."""

import math

import numpy as np
import pytest
import torch

import adamant as am
from adamant.access import Sight, sight
from adamant.engine import run
from adamant.errors import InputError, ModelError
from adamant.goals import Untargeted
from adamant.models import BlackBox, LabelsOf, Normalised, Probabilities, Scores, as_logits

X = torch.rand(7, 1, 2, 3, generator=torch.Generator().manual_seed(0))


def box(answer, classes=None, **settings):
    """A black box that answers this, for as many rows as it is asked."""
    return BlackBox(lambda x: np.array(answer)[np.zeros(len(x), dtype=int)], classes, **settings)


def linear(x):
    w = np.linspace(-1, 1, 18, dtype=np.float64).reshape(6, 3)
    return np.asarray(x, dtype=np.float64).reshape(len(x), -1) @ w


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_become_their_logarithms_and_zero_the_smallest_number(dtype):
    logits = box(np.array([[0.0, 0.25, 0.75]], dtype=dtype), 3)(X)
    assert logits.dtype == torch.from_numpy(np.zeros(1, dtype)).dtype
    assert logits.shape == (7, 3)
    wanted = [math.log(float(np.finfo(dtype).tiny)), math.log(0.25), math.log(0.75)]
    assert torch.allclose(logits[3], torch.tensor(wanted, dtype=logits.dtype))


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
def test_one_number_for_each_row_is_that_of_class_1(shape):
    p = box(np.full(shape, 0.8), 2)(X)
    assert torch.allclose(p.exp()[0], torch.tensor([0.2, 0.8], dtype=torch.float64))
    z = box(np.full(shape, -1.5), 2, output=Scores())(X)
    assert z[0].tolist() == [0.0, -1.5]


def test_labels_are_found_among_the_names_and_told_one_hot():
    names = ("cat", "dog", 7)
    said = ["dog", 7, "cat", "cat", "dog", "dog", 7]
    logits = BlackBox(lambda x: said[: len(x)], output=LabelsOf(names))(X)
    assert logits.tolist() == [[float(n == s) for n in names] for s in said]
    column = BlackBox(lambda x: np.array([["a"], ["b"]] * 4)[: len(x)], output=LabelsOf(("b", "a")))(X)
    assert column.argmax(1).tolist() == [1, 0, 1, 0, 1, 0, 1]


def test_the_function_gets_rows_as_they_are_in_chunks_and_cannot_change_them():
    asked = []

    def call(x):
        asked.append(x.copy())
        x += 1
        return np.full((len(x), 2), 0.5)

    before, model = X.clone(), BlackBox(call, 2, chunk=3)
    model(X.double())
    assert [len(a) for a in asked] == [3, 3, 1]
    assert np.array_equal(np.concatenate(asked), X.double().numpy())
    assert torch.equal(X, before)
    assert model.queries == 7
    seen = []
    BlackBox(lambda t: seen.append(t) or torch.full((len(t), 2), 0.5), 2, tensors=True)(X)
    assert isinstance(seen[0], torch.Tensor)
    assert not model(X.requires_grad_(True)).requires_grad
    X.requires_grad_(False)


def test_what_it_says_it_shows_is_what_a_model_around_it_shows():
    assert sight(BlackBox(linear, 3, output=Scores())) == Sight.SCORES
    assert sight(Normalised(box(["a"], output=LabelsOf(("a", "b"))), (0.5,), (0.5,))) == Sight.LABELS
    assert sight(torch.nn.Linear(2, 2)) == Sight.GRADIENT


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: box([[0.2, 0.3]], 2), "no probabilities that add up to 1"),
        (lambda: box([[-0.2, 1.2]], 2), "no probabilities"),
        (lambda: box([[0.5, 0.5]], 3), r"shape \(7, 2\) for 7 rows; it must return probabilities of 3 classes"),
        (lambda: box([0.5], 3), "3 classes"),
        (lambda: BlackBox(lambda x: np.zeros((1, 2)), 2, output=Scores()), r"shape \(1, 2\) for 7 rows"),
        (lambda: BlackBox(lambda x: "nothing", 2), "not a table of probabilities"),
        (lambda: box(["bird"], output=LabelsOf(("cat", "dog"))), "answered 'bird', which is none of the classes 'cat'"),
        (lambda: BlackBox(lambda x: ["cat"], output=LabelsOf(("cat", "dog"))), "1 labels for 7 rows"),
    ],
)
def test_answers_of_another_kind_are_refused(make, why):
    with pytest.raises(ModelError, match=why):
        make()(X)


@pytest.mark.parametrize(
    "settings",
    [{"classes": 3, "output": LabelsOf(("a", "b"))}, {"output": LabelsOf(("a", "a"))}, {"classes": 1}, {"chunk": 0}],
)
def test_settings_that_contradict_one_another_are_refused(settings):
    with pytest.raises(InputError):
        BlackBox(linear, **settings)


def test_settings_are_what_they_print():
    for value in (Probabilities(), Scores(), LabelsOf(("a", 3))):
        assert eval(repr(value)) == value


@pytest.mark.parametrize(
    "attack", [am.Square(steps=20), am.RandomSearch(steps=9), am.RayS(steps=30), am.Draws(steps=5)]
)
@pytest.mark.parametrize("batch", [None, 3])
def test_the_books_hold_every_query_and_no_other(attack, batch):
    model = BlackBox(linear, 3, output=Scores())
    y = model(X).argmax(1)
    model.queries = 0
    out = run(attack, model, X, Untargeted(y), am.Linf(0.1), settings=am.Settings(batch_size=batch))
    assert model.queries == int((out.forwards + out.checks).sum()) > 7


def test_it_is_logits_already_and_is_asked_once_for_each_probe():
    model = BlackBox(linear, 3, output=Scores())
    wrapped, notes = as_logits(model, X)
    assert wrapped is model
    assert model.queries == 7
    assert "shows scores and no gradient" in notes[0]
    labels = box(["a"], output=LabelsOf(("a", "b")))
    wrapped, notes = as_logits(labels, X[:1])
    assert wrapped is labels
    assert labels.queries == 1
    assert "labels only" in notes[0]
