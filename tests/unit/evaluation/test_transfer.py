"""The matrix of sources and targets: who is asked, who is judged, what counts."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

import adamant as am
from adamant.access import Sight
from adamant.attacks.gradient import At
from adamant.errors import InputError
from adamant.evaluation import transfer
from adamant.goals import Untargeted
from adamant.losses import CrossEntropy
from adamant.random import Rng
from adamant.testing import Affine

SHAPE = (1, 3, 3)


class Counted(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.rows, self.gradients = net, 0, 0

    def forward(self, z):
        self.rows += len(z)
        self.gradients += z.requires_grad
        return self.net(z)


@pytest.fixture
def scene():
    one, other = Affine(SHAPE, 3, seed=0), Affine(SHAPE, 3, seed=1)
    x = Rng.of(0, 70).uniform(*SHAPE)
    with torch.no_grad():
        return one, other, x, Untargeted(one(x).argmax(1))


def test_the_diagonal_is_the_white_box_and_a_copy_is_fooled_alike(scene):
    one, other, x, goal = scene
    found = transfer(am.PGD(steps=10), {"one": one}, {"one": one, "copy": one, "other": other}, x, goal, am.Linf(0.3))
    rate = found.rate["one"]
    assert rate["one"] == rate["copy"]
    assert rate["one"]["accuracy"] > rate["other"]["accuracy"]
    z = found.x_adv["one"]
    assert am.Linf(0.3).contains(z, x).all()
    with torch.no_grad():
        right = other(x).argmax(1) == goal.label
        fooled = (other(z).argmax(1) != goal.label) & right
    assert rate["other"]["rows"] == int(right.sum())
    assert rate["other"]["correct"] == int(fooled.sum())
    assert found.clean["other"]["correct"] == int(right.sum())


def test_targets_are_never_asked_while_crafting(scene):
    one, other, x, goal = scene
    target = Counted(other)
    transfer(am.PGD(steps=10), {"one": one}, {"target": target}, x, goal, am.Linf(0.3), batch_size=70)
    assert target.gradients == 0
    assert target.rows <= 2 * 80  # once clean, once adversarial, in full lanes


def test_what_leaves_the_threat_model_fools_nobody(scene):
    one, _, x, goal = scene

    @dataclass(frozen=True)
    class Jumps:
        steps: int = 1
        loss: CrossEntropy = CrossEntropy()
        needs: ClassVar[Sight] = Sight.GRADIENT

        def init(self, p):
            return At(p.x)

        def step(self, p, s, seen, t):
            return At(p.threat.clip(p.x + seen.slope.sign()))

    found = transfer(Jumps(), {"one": one}, {"one": one}, x, goal, am.Linf(0.01))
    assert found.rate["one"]["one"]["correct"] == 0


def test_rows_do_not_depend_on_the_batch(scene):
    one, other, x, goal = scene
    a = transfer(am.PGD(steps=5), {"one": one}, {"other": other}, x, goal, am.Linf(0.3), batch_size=16)
    b = transfer(am.PGD(steps=5), {"one": one}, {"other": other}, x, goal, am.Linf(0.3), batch_size=64)
    assert torch.equal(a.x_adv["one"], b.x_adv["one"])


def test_what_cannot_transfer_is_refused(scene):
    one, other, x, goal = scene
    with pytest.raises(InputError, match="Restarts stops at what fools the source"):
        transfer(am.Restarts(am.PGD(), 2), {"one": one}, {"other": other}, x, goal, am.Linf(0.3))
    with pytest.raises(InputError, match="at least one model"):
        transfer(am.PGD(), {}, {"other": other}, x, goal, am.Linf(0.3))
    with pytest.raises(InputError, match="has no row right"):
        transfer(am.PGD(steps=1), {"one": one}, {"one": one}, x, Untargeted((goal.label + 1) % 3), am.Linf(0.3))
