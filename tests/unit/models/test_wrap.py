"""Surrogates made of many, and a stand-in for the gradient of what has none."""

import pytest
import torch
from torch import nn

import adamant as am
from adamant.errors import InputError, ModelError
from adamant.models import BPDA, Ensemble
from adamant.random import Rng
from adamant.testing import Affine, Bent


def test_an_ensemble_is_the_mean_of_its_logits():
    nets = [Affine((4,), 3, seed=i) for i in range(3)]
    x = Rng.of(0, 5).uniform(4)
    torch.testing.assert_close(Ensemble(*nets)(x), sum(n(x) for n in nets) / 3)
    with pytest.raises(InputError, match="at least one model"):
        Ensemble()


def coarse(x):
    return (x * 4).round() / 4


def test_bpda_answers_as_defended_and_slopes_as_its_substitute():
    net, x = Affine((4,), 3), Rng.of(0, 5).uniform(4).requires_grad_(True)
    model = BPDA(net, coarse)
    assert torch.allclose(model(x), net(coarse(x)), atol=1e-6)
    (g,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    assert torch.allclose(g, net.weight[0].expand(5, -1))
    bent = BPDA(net, coarse, substitute=torch.sin)
    (g,) = torch.autograd.grad(bent(x)[:, 0].sum(), x)
    assert torch.allclose(g, net.weight[0] * x.cos())
    assert torch.allclose(bent(x), net(coarse(x)), atol=1e-6)


def test_a_shattered_gradient_is_masked_and_bpda_sees_through_it():
    class Defended(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(coarse(x))

    net = Bent((16,), 4).eval()
    x = coarse(Rng.of(0, 60).uniform(16))
    with torch.no_grad():
        y = net(x).argmax(1)
    threat = am.Linf(0.2)
    blind = am.attack(am.PGD(steps=10), Defended(net), x, y, threat)
    sees = am.attack(am.PGD(steps=10), BPDA(net, coarse), x, y, threat)
    assert sees.success_rate > blind.success_rate + 0.2
    assert (Defended(net)(sees.x_adv[sees.broken]).argmax(1) != y[sees.broken]).all()


def test_a_substitute_of_another_shape_is_refused():
    with pytest.raises(ModelError, match="give a substitute that returns the same shape"):
        BPDA(Affine((2,), 2), lambda x: x[:, :2])(torch.zeros(3, 4))
