"""The referee: every kind of false claim is named, true ones count, and no library is needed to say so."""

import sys
import types

import pytest
import torch

import adamant as am
from adamant.adversary import Status
from adamant.engine import run
from adamant.errors import InputError
from adamant.goals import Targeted, Untargeted
from adamant.random import Rng
from adamant.referee import better, referee
from adamant.testing import Affine

SHAPE = (1, 3, 3)


@pytest.fixture
def scene():
    model, x = Affine(SHAPE, 3), Rng.of(0, 30).uniform(*SHAPE)
    with torch.no_grad():
        label = model(x).argmax(1)
    label[0] = (label[0] + 1) % 3  # wrong already
    return model, x, Untargeted(label), am.Linf(0.3)


def claims(change, said=True):
    def craft(model, x, goal):
        z = change(model, x, goal)
        return z, torch.full((len(x),), said)

    return craft


def pgd(model, x, goal):
    return run(am.PGD(steps=20), model, x, goal, am.Linf(0.3)).x_adv


def test_true_claims_are_upheld(scene):
    model, x, goal, threat = scene
    want = run(am.PGD(steps=20), model, x, goal, threat)
    ruling = referee(claims(pgd), model, x, goal, threat)
    assert torch.equal(ruling.outcome.broken, want.broken)
    assert torch.equal(ruling.outcome.size[want.broken], want.size[want.broken])
    assert ruling.outcome.status[0] == Status.WRONG_ALREADY
    assert torch.equal(ruling.false_claims, (want.status == Status.ROBUST))
    silent = referee(claims(pgd, said=False), model, x, goal, threat)
    assert torch.equal(silent.unclaimed, want.broken)
    assert "were not claimed" in silent.sentences()[-1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m, x, g: x * torch.nan, "hold NaN or infinity"),
        (lambda m, x, g: torch.full_like(x, torch.inf), "hold NaN or infinity"),
        (lambda m, x, g: x + 1.01, "are outside of the box"),
        (lambda m, x, g: 1 - x, "are outside of the budget"),
        (lambda m, x, g: x, "do not fool the model when asked alone"),
        (lambda m, x, g: torch.zeros_like(x), "are outside of the budget"),  # the black image
    ],
)
def test_a_false_claim_is_named(scene, change, words):
    model, x, goal, threat = scene
    ruling = referee(claims(change), model, x, goal, threat)
    assert not ruling.outcome.broken.any()
    assert ruling.false_claims[1:].all()
    assert not ruling.false_claims[0]
    assert any(words in line for line in ruling.sentences())
    assert torch.equal(ruling.outcome.x_adv, x)


def test_rounding_beyond_the_budget_is_allowed_and_said(scene):
    model, x, goal, threat = scene

    def hair(m, x, g):
        z = pgd(m, x, g)
        return x + (z - x) * (1 + 5e-6)

    ruling = referee(claims(hair), model, x, goal, threat, slack=1e-5)
    strict = referee(claims(hair), model, x, goal, threat, slack=0.0)
    assert ruling.outcome.broken.sum() > strict.outcome.broken.sum()
    assert any("beyond the budget by rounding" in line for line in ruling.sentences())


def test_the_caller_loses_nothing(scene):
    model, x, goal, threat = scene
    before = x.clone()

    def rude(m, x, g):
        m.weight.grad = torch.ones_like(m.weight)
        return x.fill_(0.5)

    model.train()
    referee(claims(rude), model, x, goal, threat)
    assert torch.equal(x, before)
    assert model.training


def test_the_better_of_two(scene):
    model, x, goal, threat = scene
    a = run(am.FGSM(), model, x, goal, threat)
    b = run(am.DDN(steps=20), model, x, goal, am.L2())
    best = better(a, b)
    assert torch.equal(best.broken, a.broken | b.broken)
    assert torch.equal(best.forwards, a.forwards + b.forwards)
    both = a.broken & b.broken
    assert torch.equal(best.size[both], torch.minimum(a.size, b.size)[both])


def test_what_is_no_attack_is_refused(scene):
    model, x, goal, threat = scene
    with pytest.raises(InputError, match="is no attack that the referee knows"):
        referee(3, model, x, goal, threat)
    with pytest.raises(InputError, match="examples have the shape of the inputs"):
        referee(claims(lambda m, x, g: x[:2]), model, x, goal, threat)


@pytest.fixture
def libraries(monkeypatch):
    """Stand-ins with the front doors of the libraries, which need not be installed."""
    seen = {}

    def ddn(*, model, inputs, labels, targeted):
        seen["adv_lib"] = (labels, targeted)
        return pgd(model, inputs, Targeted(labels * 0, labels) if targeted else Untargeted(labels))

    ddn.__module__ = "adv_lib.attacks.ddn"

    class Art:
        def generate(self, x, y):
            seen["art"] = y
            return x[:] * 0 + 0.5

    Art.__module__ = "art.attacks.evasion"

    class TorchAttack:
        def set_mode_targeted_by_label(self, quiet):
            seen["mode"] = True

        def set_mode_default(self):
            seen["mode"] = "default"

        def __call__(self, x, y):
            seen["torchattacks"] = y
            return x.clone()

    TorchAttack.__module__ = "torchattacks.attacks.pgd"

    class Fool:
        def __call__(self, model, x, criterion, epsilons):
            seen["foolbox"] = (criterion, epsilons)
            return x, (x + 0.1).clamp(0, 1), torch.ones(len(x), dtype=torch.bool)

    Fool.__module__ = "foolbox.attacks.base"
    foolbox = types.ModuleType("foolbox")
    foolbox.PyTorchModel = lambda model, bounds, device: model
    foolbox.criteria = types.SimpleNamespace(
        Misclassification=lambda y: ("any", y), TargetedMisclassification=lambda y: ("to", y)
    )
    monkeypatch.setitem(sys.modules, "foolbox", foolbox)
    return seen, ddn, Art(), TorchAttack(), Fool()


def test_each_library_is_asked_through_its_own_door(scene, libraries):
    model, x, goal, threat = scene
    seen, ddn, art, torch_attack, fool = libraries
    assert referee(ddn, model, x, goal, threat).outcome.broken.any()
    assert seen["adv_lib"][1] is False
    referee(art, model, x, goal, threat)
    assert (seen["art"] == goal.label.numpy()).all()
    ruling = referee(torch_attack, model, x, goal, threat)
    assert not ruling.claimed.any()  # nothing changed, nothing claimed
    assert referee(fool, model, x, goal, threat).claimed.all()
    assert seen["foolbox"][0][0] == "any"
    assert seen["foolbox"][1] == 0.3
    referee(fool, model, x, goal, am.Linf())
    assert seen["foolbox"][1] is None
    target = Targeted(goal.label, (goal.label + 1) % 3)
    referee(torch_attack, model, x, target, threat)
    assert seen["mode"] == "default"  # put back after the targeted call
    assert torch.equal(seen["torchattacks"], target.target)
    referee(fool, model, x, target, threat)
    assert seen["foolbox"][0][0] == "to"
