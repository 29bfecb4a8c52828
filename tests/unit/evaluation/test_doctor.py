"""The doctor: each planted defect is found by the finding that names it, and healthy networks are left in peace."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import adamant as am
from adamant.calling import Settings
from adamant.data import DataSet, load_data
from adamant.errors import InputError, ModelError
from adamant.evaluation.doctor import (
    Verdict,
    best_kept,
    black_box,
    certificate,
    eight_bit,
    examine,
    inside,
    paired,
    precision,
    review,
    rounded,
)

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from planted import After, Inner, Sparse, penultimate, planted  # pyright: ignore[reportMissingImports]

SHARED = Path(__file__).parents[3].parent / "shared"
MODELS = Path(os.environ.get("ADAMANT_MODELS_DIR", SHARED / "models"))
DATA = Path(os.environ.get("ADAMANT_DATA_DIR", SHARED / "data"))
EPS = 0.15


def _network():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 64), nn.ReLU(),
        nn.Linear(64, 10),
    )  # fmt: skip


def _trained(data, eps, epochs=10):
    """FGSM from a random start where eps is not zero."""
    torch.manual_seed(0)
    net = _network()
    best = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(data)).split(64):
            x, y = data.x[rows], data.y[rows]
            if eps:
                z = (x + eps * (2 * torch.rand_like(x) - 1)).requires_grad_(True)
                g = torch.autograd.grad(nn.functional.cross_entropy(net(z), y), z)[0]
                x = (x + (z.detach() - x + eps * g.sign()).clamp(-eps, eps)).clamp(0, 1)
            best.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            best.step()
    best.zero_grad()
    return net.eval()


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", split="test")


@pytest.fixture(scope="module")
def plain():
    return _trained(load_data("digits", split="train"), 0, epochs=6)


@pytest.fixture(scope="module")
def hard():
    return _trained(load_data("digits", split="train"), EPS)


@pytest.fixture(scope="module")
def ill(hard, digits):
    return planted(hard, digits.x)


def quick(model, data, threat=None, **more):
    return examine(model, data, threat or am.Linf(EPS), **{"rows": 32, **more})


def sheet(model, data, threat=None, **more):
    """Without the diagnostics that need gradients, which take most of the time."""
    return quick(model, data, threat, access=am.access.ScoresOnly(), rows=48, **more)


def test_healthy_networks_raise_no_alarm(plain, hard, digits):
    for net, threat in ((plain, am.Linf(EPS)), (hard, am.Linf(EPS)), (plain, am.Linf(8 / 255)), (hard, am.L2(0.5))):
        found = examine(net, digits, threat, claimed=0.95, rows=96)
        assert found.worst == Verdict.PASS, [f for f in found.findings if f.verdict > Verdict.PASS]
        assert found.masking == ()


def test_what_was_counted_went_through_the_model(hard, digits):
    seen = [0]
    handle = hard.register_forward_hook(lambda m, a, out: seen.__setitem__(0, seen[0] + len(out)))
    found = quick(hard, digits, settings=Settings(lanes=1))
    handle.remove()
    assert found.forwards <= seen[0] <= found.forwards + 200  # as_logits probes a few times more
    assert found.forwards < 260 * 32


@pytest.mark.parametrize(
    "name",
    [
        "quantiser, 8 levels", "the same, straight through", "rounding in blocks, as JPEG", "k winners take all",
        "MeanSparse, 0.5", "noise on the input", "logits x 1e4", "logits / 1e3", "softmax", "training mode",
        "mean of the batch", "detached", "a running mean", "optimises in forward", "leaves gradients",
        "snaps to known inputs", "reversed gradient", "an output more",
        # One like each of these is above, or has a test of its own.
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("64 levels, straight through", "MeanSparse, 1.0")),
        pytest.param("log-softmax", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_planted_defect_is_named(name, ill, digits):
    model, named = ill[name]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    found = quick(model, digits)
    loud = {f.id for f in found.findings if f.verdict >= Verdict.WARN}
    assert loud & set(named), (loud, [found[i] for i in named])
    assert all(f.advice for f in found.findings if f.verdict >= Verdict.WARN)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert modes == [m.training for m in model.modules()]


def test_small_jumps_are_seen_though_all_signs_agree(hard, digits):
    u = penultimate(hard, digits.x)
    found = quick(Inner(hard, Sparse(u.mean(0), 0.3 * u.std(0))).eval(), digits, rows=64)
    assert found["D6"].verdict == Verdict.WARN, found["D6"].measured


def test_the_finding_of_a_rounding_module_names_it(ill, digits):
    found = quick(ill["64 levels, straight through"][0], digits)
    assert "parts that jump: 0 (" in found["D19"].measured
    assert found.masking[0].id == "D19"


def test_labels_and_ranges_that_do_not_fit(hard, digits):
    moved = sheet(hard, replace(digits, y=(digits.y + 1) % 10))["D12"]
    assert moved.verdict == Verdict.FAIL
    assert "moved by -1" in moved.advice
    hot = sheet(hard, replace(digits, y=nn.functional.one_hot(digits.y, 10)))["D12"]
    assert hot.verdict == Verdict.FAIL
    assert "one-hot" in hot.advice
    assert sheet(hard, replace(digits, y=digits.y - 1))["D30"].verdict == Verdict.FAIL
    assert sheet(hard, digits, claimed=0.5)["D11"].verdict == Verdict.FAIL
    normal = replace(digits, x=(digits.x - digits.x.mean()) / digits.x.std())
    wrong = quick(After(hard, before=lambda v: v * digits.x.std() + digits.x.mean()), normal)
    assert wrong["D10"].verdict == Verdict.FAIL
    assert "normalised" in wrong["D10"].advice
    assert wrong["D14"].verdict == Verdict.SKIPPED
    assert sheet(hard, digits, am.Linf(8.0))["D10"].verdict == Verdict.WARN
    assert sheet(hard, replace(digits, x=digits.x / 255))["D10"].verdict == Verdict.WARN
    bytes_ = replace(digits, x=(digits.x * 255).round().to(torch.uint8))
    found = sheet(hard, bytes_)
    assert found["D10"].verdict == Verdict.FAIL
    assert found["D12"].verdict == Verdict.PASS


def test_rows_without_numbers_are_a_finding(hard, digits):
    class Hole(nn.Module):
        def forward(self, x):
            odd = (x - digits.x[3]).abs().flatten(1).amax(1) == 0
            return torch.where(odd[:, None], torch.nan, hard(x))

    found = examine(Hole(), digits.take(torch.arange(40)), am.Linf(EPS))
    assert found["D22"].verdict == Verdict.FAIL
    assert found["D22"].number == 1
    assert found["D12"].verdict == Verdict.PASS
    assert found["D3"].verdict == Verdict.PASS
    nothing = quick(After(hard, lambda z: z * torch.nan), digits)
    assert nothing["D22"].verdict == Verdict.FAIL
    assert nothing["D6"].verdict == Verdict.SKIPPED


def test_odd_company(hard, digits):
    with pytest.raises(ModelError, match=r"raised RuntimeError on an input of shape \(16, 1, 8, 8\)"):
        quick(nn.Linear(3, 2), digits)
    with pytest.raises(ModelError, match="not a torch module"):
        examine(3, digits, am.Linf(EPS))
    with pytest.raises(InputError, match="no rows"):
        quick(hard, digits.take(torch.arange(0)))
    few = am.Linf(am.batch.PerRow([0.1, 0.2]))
    with pytest.raises(InputError, match="2 budgets for 60 rows"):
        quick(hard, digits.take(torch.arange(60)), few)
    each = am.Linf(am.batch.PerRow([0.1, 0.15] * 30))
    assert quick(hard, digits.take(torch.arange(60)), each)["D6"].verdict == Verdict.PASS
    for n in (1, 3, 20):
        assert examine(hard, digits.take(torch.arange(n)), am.Linf(EPS)).rows == n
    blind = quick(hard, digits, access=am.access.ScoresOnly())
    assert blind["D6"].verdict == Verdict.SKIPPED
    assert blind["D3"].verdict == Verdict.PASS
    assert quick(hard, digits, am.L2())["D17"].verdict == Verdict.SKIPPED
    assert quick(hard, digits, am.L0(5))["D6"].verdict == Verdict.SKIPPED


def test_two_classes_and_flat_inputs():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2)).eval()
    x = torch.rand(300, 6)
    with torch.no_grad():
        net[-1].bias -= net(x).median(0).values
        y = net(x).argmax(1)
    data = DataSet(x=x, y=y, classes=("a", "b"), name="flat", split="test", rows=torch.arange(300))
    found = quick(net, data, am.Linf(0.05))
    assert found["D12"].verdict == Verdict.PASS
    assert found["D6"].verdict == Verdict.PASS
    one = After(net, lambda z: (z[:, 1:] - z[:, :1]).sigmoid())
    assert quick(one, data, am.Linf(0.05))["D8"].verdict == Verdict.WARN


def test_the_same_seed_finds_the_same(hard, digits):
    a, b = quick(hard, digits, rows=24), quick(hard, digits, rows=24, settings=Settings(batch_size=16))
    assert quick(hard, digits, rows=24) == a
    for one, other in zip(a.findings, b.findings, strict=True):
        assert (one.id, one.verdict) == (other.id, other.verdict)
        assert one.number == pytest.approx(other.number, abs=1e-4)
    assert quick(hard, digits, rows=24, seed=1)["D6"].number != a["D6"].number


def test_reviews_of_what_an_audit_did():
    rows = {"status": ["broken"] * 8 + ["robust"] * 92, "attack": ["PGD()"] * 2 + ["Square()"] * 6 + [None] * 92}
    black, sample_ = review(rows, blind=("Square()",))[:2]
    assert black.id == "D13"
    assert black.number == pytest.approx(0.06)
    assert black.verdict == Verdict.FAIL
    assert "92.0% of 100 rows stand" in sample_.measured
    assert review(rows, blind=())[0].verdict == Verdict.PASS
    assert black_box(1, 100).verdict == Verdict.WARN
    assert black_box(2, 1000).verdict == Verdict.PASS
    assert review(rows, blind=(), one_step=("Square()",), iterated=("PGD()",))[2].verdict == Verdict.WARN
    yes, no = torch.tensor([True, False, True]), torch.tensor([True, False, False])
    assert best_kept(yes, no).verdict == Verdict.FAIL
    assert best_kept(no, yes).verdict == Verdict.PASS
    assert certificate(yes, ~no).number == 1
    assert certificate(no, ~no).verdict == Verdict.PASS
    assert precision(1000, 998).verdict == Verdict.WARN
    assert precision(1000, 999).verdict == Verdict.PASS
    assert paired(yes, yes) == 1
    assert paired(torch.ones(10).bool(), torch.zeros(10).bool()) == pytest.approx(2 / 1024)


def test_the_threat_model_is_measured_again_in_float64():
    x = torch.full((2, 1, 2, 2), 0.5)
    z = x + 0.1
    assert inside([(z, x)], am.Linf(0.2)).verdict == Verdict.PASS
    out = inside([(z[:1], x[:1]), (x[:1] + 0.2 + 3e-7, x[1:])], am.Linf(0.2))
    assert out.number == 1
    assert inside([(z * torch.nan, x)], am.Linf(0.2)).number == 2
    logits, y = torch.tensor([[0.0, 1], [1, 0]]), torch.zeros(2).long()
    assert (rounded(z) * 255 == (rounded(z) * 255).round()).all()
    assert eight_bit([(logits[:1], y[:1], x[:1], z[:1]), (logits[1:], y[1:], x[1:], z[1:])], am.Linf(0.2)).number == 0.5


REFERENCES = [
    ("mnist_cnn_pgd", "zoo:cnn", 0.3), ("mnist_lenet5_adv", "zoo:lenet5", 0.3),
    ("mnist_lenet5_clean", "zoo:lenet5", 0.1),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("file", "arch", "eps"), REFERENCES)
def test_reference_networks_raise_no_alarm(file, arch, eps):
    weights = MODELS / f"{file}.safetensors"
    if not (weights.exists() and (DATA / "mnist.npz").exists()):
        pytest.skip(f"needs {weights.name} (ADAMANT_MODELS_DIR) and mnist.npz (ADAMANT_DATA_DIR)")
    model = am.load_model(weights, arch=arch, shape=(1, 28, 28), classes=10)
    found = examine(model, load_data("mnist", data_dir=DATA), am.Linf(eps), claimed=0.9886)
    assert found.worst == Verdict.PASS, [f for f in found.findings if f.verdict > Verdict.PASS]
