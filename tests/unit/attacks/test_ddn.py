"""DDN beside the paper's update written out, and adv_lib's figures."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import adamant as am
from adamant.engine import run
from adamant.goals import Untargeted
from adamant.models import load_model
from adamant.random import Rng
from adamant.testing import Bent

SHARED = Path(__file__).parents[3].parent / "shared"
MODELS = Path(os.environ.get("ADAMANT_MODELS_DIR", SHARED / "models"))
DATA = Path(os.environ.get("ADAMANT_DATA_DIR", SHARED / "data"))


@pytest.fixture
def net():
    return Bent((1, 8, 8), 4).eval()


@pytest.fixture
def x():
    """Many entries exactly at the edges of the box, as in real pictures."""
    return (Rng.of(7, 40).uniform(1, 8, 8) * 1.5 - 0.25).clamp(0, 1)


def reference(net, x, label, steps):
    """Rony et al., algorithm 1, for one input, without quantisation: the smallest success."""
    d, radius, best = torch.zeros_like(x), 1.0, math.inf
    for k in range(steps):
        d.requires_grad_(True)
        logits = net((x + d)[None])
        g = torch.autograd.grad(F.cross_entropy(logits, label[None]), d)[0]
        d, fooled = d.detach(), bool(logits.argmax() != label)
        best = min(best, float(d.norm())) if fooled else best
        d = d + (0.01 + 0.99 * (1 + math.cos(math.pi * k / steps)) / 2) * g / g.norm()
        radius *= 0.95 if fooled else 1.05
        d = (x + radius * d / d.norm()).clamp(0, 1) - x
    return best, d


def test_every_row_ends_as_in_the_paper(net, x):
    net, x = net.double(), x[:8].double()
    with torch.no_grad():
        label = net(x).argmax(1)
    last, step = [], am.DDN.step

    class Spy:
        needs, minimal, steps, loss = am.DDN.needs, True, 40, am.CrossEntropy()

        def init(self, p):
            return am.DDN(steps=40).init(p)

        def step(self, p, s, seen, t):
            last.append(step(am.DDN(steps=40), p, s, seen, t))
            return last[-1]

    out = run(Spy(), net, x, Untargeted(label), am.L2())
    for i in range(len(x)):
        best, d = reference(net, x[i], label[i], 40)
        assert torch.allclose(last[-1].change[i], d, atol=1e-9)
        assert float(out.size[i]) <= best + 1e-9


def test_on_a_small_network_its_figures_are_adv_lib_s(net, x):
    """adv_lib 0.2.8, ddn(steps=100, levels=None): 40 of 40, median .3297, mean .4231."""
    with torch.no_grad():
        label = net(x).argmax(1)
    out = run(am.DDN(), net, x, Untargeted(label), am.L2())
    assert out.broken.all()
    assert float(out.size.median()) == pytest.approx(0.3297, abs=3e-4)
    assert float(out.size.mean()) == pytest.approx(0.4231, abs=1e-3)


@pytest.mark.slow
def test_on_a_defended_network_it_finds_no_more_than_adv_lib():
    """First 100 test images, 100 steps; adv_lib 0.2.8 (levels=None): 100 of 100, median 2.4065, mean 2.4520."""
    weights, data = MODELS / "mnist_cnn_pgd.safetensors", DATA / "mnist.npz"
    if not (weights.exists() and data.exists()):
        pytest.skip(f"needs {weights.name} (ADAMANT_MODELS_DIR) and mnist.npz (ADAMANT_DATA_DIR)")
    model = load_model(weights, arch="zoo:cnn", shape=(1, 28, 28), classes=10)
    with np.load(data, allow_pickle=False) as held:
        x, y = torch.from_numpy(held["x_test"][:100])[:, None].float() / 255, torch.from_numpy(held["y_test"][:100])
    out = run(am.DDN(), model, x, Untargeted(y.long()), am.L2())
    assert out.broken.all()
    assert out.size.median() <= 2.4065 * 1.01
