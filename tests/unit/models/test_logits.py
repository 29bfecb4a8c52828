"""as_logits: every form of output that people's models have, and nothing changed by asking."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adamant.errors import ModelError
from adamant.models import as_logits, build
from adamant.models.wrap import LogOfProbabilities, OneLogit, OneProbability, Unwrapped

X = torch.linspace(0, 1, 4 * 64).view(4, 1, 8, 8)


class Head(nn.Module):
    """A linear model whose last step is the one under test."""

    def __init__(self, last, classes: int = 3) -> None:
        super().__init__()
        self.net = build("mlp", shape=(1, 8, 8), classes=max(classes, 2), seed=2)
        self.last, self.classes = last, classes

    def forward(self, x: Tensor):
        return self.last(self.net(x)[:, : self.classes])


def test_logits_are_left_alone() -> None:
    model = Head(lambda z: z)
    assert as_logits(model, X) == (model, ())


def test_probabilities_are_recognised() -> None:
    model = Head(lambda z: z.softmax(1))
    wrapped, (note,) = as_logits(model, X)
    assert isinstance(wrapped, LogOfProbabilities)
    assert torch.allclose(wrapped(X).softmax(1), model(X))
    assert "softmax(log p) = p" in note
    assert "gradient" in note


def test_probabilities_of_zero_stay_finite() -> None:
    wrapped, _ = as_logits(Head(lambda z: (1e6 * z).softmax(1)), X)
    assert wrapped(X).isfinite().all()


@pytest.mark.parametrize("rows", [1, 4])
def test_one_row_by_chance_is_not_enough(rows: int) -> None:
    """Logits whose first row happens to be a distribution; the second probe row, ours where there is but one, tells."""

    def last(z: Tensor) -> Tensor:
        return torch.where(z == z[:1], torch.tensor([0.2, 0.3, 0.5]), z) if len(z) > 1 else z

    assert not isinstance(as_logits(Head(last), X)[0], LogOfProbabilities)

    def by_input(x: Tensor) -> Tensor:
        chance = torch.tensor([[0.2, 0.3, 0.5]])
        return torch.cat([chance if torch.equal(row, X[0]) else row.flatten()[None, :3] * 7 for row in x])

    class Chance(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return by_input(x)

    assert as_logits(Chance(), X[:rows])[1] == ()
    assert as_logits(Chance(), X[:1].expand(2, -1, -1, -1))[1] != ()


def test_one_row_of_true_probabilities_is_recognised() -> None:
    assert isinstance(as_logits(Head(lambda z: z.softmax(1)), X[:1])[0], LogOfProbabilities)


def test_log_probabilities_stay_with_a_note() -> None:
    model = Head(lambda z: z.log_softmax(1))
    wrapped, (note,) = as_logits(model, X)
    assert wrapped is model
    assert "log-probabilities" in note


def test_sigmoids_for_each_class_are_remarked() -> None:
    model = Head(torch.sigmoid)
    wrapped, (note,) = as_logits(model, X)
    assert wrapped is model
    assert "do not sum to 1" in note


def test_one_logit_becomes_two() -> None:
    model = Head(lambda z: z, classes=1)
    wrapped, (note,) = as_logits(model, X)
    assert isinstance(wrapped, OneLogit)
    assert torch.equal(wrapped(X), torch.cat([torch.zeros(4, 1), model(X)], 1))
    assert "[0, z]" in note


def test_a_small_logit_is_not_taken_for_a_probability() -> None:
    """On the probe alone it lies in [0, 1]; far away it does not."""
    wrapped, _ = as_logits(Head(lambda z: 0.5 + 1e-3 * z, classes=1), X)
    assert isinstance(wrapped, OneLogit)


def test_a_model_that_checks_its_input_is_not_blamed_for_our_probe() -> None:
    def last(z: Tensor) -> Tensor:
        if z.abs().max() > 100:
            raise ValueError("out of range")
        return z.sigmoid()

    assert isinstance(as_logits(Head(last, classes=1), X)[0], OneProbability)


def test_one_probability_keeps_its_verdict() -> None:
    model = Head(torch.sigmoid, classes=1)
    wrapped, (note,) = as_logits(model, X)
    assert isinstance(wrapped, OneProbability)
    assert torch.allclose(wrapped(X).softmax(1)[:, 1:], model(X))
    assert torch.equal(wrapped(X).argmax(1), (model(X)[:, 0] > 0.5).long())
    assert "probability p of class 1" in note


@pytest.mark.parametrize(
    ("last", "where"),
    [
        (lambda z: SimpleNamespace(logits=z), ".logits"),
        (lambda z: {"logits": z, "loss": None}, '["logits"]'),
        (lambda z: (z, 0), "[0]"),
    ],
)
def test_logits_are_found_inside_other_answers(last, where: str) -> None:
    model = Head(last)
    wrapped, (note,) = as_logits(model, X)
    assert isinstance(wrapped, Unwrapped)
    assert torch.equal(wrapped(X), Head(lambda z: z)(X))
    assert where in note


def test_wrappings_add_up() -> None:
    model = Head(lambda z: (z.softmax(1),))
    wrapped, notes = as_logits(model, X)
    assert len(notes) == 2
    assert torch.allclose(wrapped(X).softmax(1), model(X)[0])


def fail(z: Tensor) -> Tensor:
    raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (fail, r"RuntimeError on an input of shape \(4, 1, 8, 8\).*mat1 and mat2"),
        (lambda z: z * float("nan"), r"nan in row 0, class 0 for an input of shape \(4, 1, 8, 8\)"),
        (lambda z: torch.where(z == z[2, 1], float("inf"), z), r"inf in row 2, class 1"),
        (lambda z: z.argmax(1), "these are labels"),
        (lambda z: z[:, 0], r"shape \(4,\).*\(n, 1\) for one binary logit"),
        (lambda z: z[:, :, None], r"shape \(4, 3, 1\)"),
        (lambda z: z[:2], r"shape \(2, 3\).*one row for each input"),
        (lambda z: z[:, :0], r"shape \(4, 0\)"),
        (lambda z: "cat", "returned a str"),
        (lambda z: {"scores": z}, "returned a dict"),
    ],
)
def test_what_is_no_classifier_is_named(last, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        as_logits(Head(last), X)


def test_a_model_without_sizes_is_named() -> None:
    with pytest.raises(ModelError, match="without a size yet"):
        as_logits(nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), X)


class Restless(nn.Module):
    """Draws from every generator, counts its calls in buffers, and changes its input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.drop = nn.Dropout(0.5)
        self.net = build("mlp", shape=(1, 8, 8), classes=3)
        self.calls: Tensor
        self.seen: Tensor
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen = self.seen + 1
        random.random(), np.random.rand()
        x.mul_(0.5)
        return self.net(self.drop(self.norm(x + torch.rand_like(x)))).softmax(1)


@pytest.mark.parametrize("breaks", [False, True])
def test_asking_changes_nothing(breaks: bool) -> None:
    model = Restless().train()
    model.norm.eval()
    next(model.parameters()).requires_grad_(False)
    if breaks:
        model.net.add_module("6", nn.Flatten(0))
    state = {k: v.clone() for k, v in model.state_dict().items()}
    before = X.clone()
    held = dict(model.named_buffers())
    torch_state, python_state, numpy_state = torch.get_rng_state(), random.getstate(), np.random.get_state()
    modes = [m.training for m in model.modules()]
    if breaks:
        with pytest.raises(ModelError):
            as_logits(model, X)
    else:
        wrapped, _ = as_logits(model, X)
        assert wrapped.training
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), numpy_state, strict=True))
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(model.get_buffer(k) is v for k, v in held.items())
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    assert torch.equal(X, before)


def test_the_probe_sees_the_model_as_it_will_be_used() -> None:
    """In eval mode, though the model came in train mode: training may well return something else."""

    class Auxiliary(nn.Module):
        def forward(self, x: Tensor):
            z = x.flatten(1)[:, :3]
            return (z, z) if self.training else z

    model = Auxiliary().train()
    assert as_logits(model, X) == (model, ())
