"""The zoo: shapes, published sizes and keys, and weights that depend on the seed alone."""

import pytest
import torch
from torch import nn

from adamant.errors import InputError
from adamant.models import ZOO, build, count_parameters
from adamant.models.init import materialise
from adamant.models.zoo import outline

LARGE = ("preact-resnet18", "wrn-16-4", "wrn-28-10")
SMALL = [entry.name for entry in ZOO if entry.name not in LARGE]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *((name, shape) for name in SMALL for shape in [(1, 8, 8), (3, 32, 32), (1, 28, 28)]),
        ("preact-resnet18", (3, 32, 32)),
        ("wrn-16-4", (1, 8, 8)),
        pytest.param("wrn-28-10", (3, 32, 32), marks=pytest.mark.slow),
    ],
)
def test_every_member_returns_finite_logits(name: str, shape: tuple[int, ...]) -> None:
    net = build(name, shape=shape, classes=7, seed=3).eval()
    x = torch.linspace(0, 1, 2 * shape[0] * shape[1] * shape[2]).view(2, *shape)
    logits = net(x)
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    assert (logits[0] != logits[1]).any()


@pytest.mark.parametrize("name", ["small-cnn", "lenet"])
def test_small_nets_work_up_to_224(name: str) -> None:
    assert build(name, shape=(3, 224, 224), classes=2)(torch.zeros(1, 3, 224, 224)).shape == (1, 2)


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("small-cnn", (1, 28, 28), 54_410),  # 9 * 32 + 32 + 13 * 13 * 32 * 10 + 10
        ("lenet", (3, 32, 32), 62_006),  # the CIFAR-10 tutorial of PyTorch
        ("cnn", (1, 28, 28), 166_406),  # Wong et al. 2020
        ("wide-cnn", (1, 28, 28), 662_786),
        ("threshold-cnn", (1, 28, 28), 662_788),
        ("conv5", (3, 32, 32), 279_466),
        ("preact-resnet18", (3, 32, 32), 11_172_170),  # Rice et al. 2020
        ("wrn-16-4", (3, 32, 32), 2_748_890),
        ("wrn-28-10", (3, 32, 32), 36_479_194),  # 36.5M in Zagoruyko & Komodakis 2016, table 4
    ],
)
def test_sizes_are_the_published_ones(name: str, shape: tuple[int, ...], count: int) -> None:
    with torch.device("meta"):
        net = outline(name, shape=shape, classes=10)()
    assert count_parameters(net) == count


def test_a_shared_parameter_counts_once() -> None:
    layer = nn.Linear(3, 3, bias=False)
    assert count_parameters(nn.Sequential(layer, layer)) == 9


@pytest.mark.parametrize("name", ["small-cnn", "mlp", "lenet5"])
def test_weights_depend_on_the_seed_alone(name: str) -> None:
    before = torch.get_rng_state()
    first = build(name, shape=(1, 8, 8), classes=3, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.randn(3)
    again = build(name, shape=(1, 8, 8), classes=3, seed=5).state_dict()
    other = build(name, shape=(1, 8, 8), classes=3, seed=6).state_dict()
    assert list(first) == list(again)
    assert all(torch.equal(first[k], again[k]) for k in first)
    drawn = [k for k in first if first[k].ndim > 1]
    assert drawn
    assert not any(torch.equal(first[k], other[k]) for k in drawn)


def test_weights_have_the_variance_of_he() -> None:
    net = build("mlp", shape=(1000,), classes=2)
    weight = net.get_parameter("1.weight")
    assert weight.var().item() == pytest.approx(2 / 1000, rel=0.02)
    assert abs(weight.mean().item()) < 1e-3
    assert not net.get_parameter("1.bias").any()


def test_nothing_stays_uninitialised() -> None:
    """A layer that `fill` does not know would keep whatever the memory held: every tensor of the zoo must be set."""
    for entry in ZOO:
        shape = (1, 8, 8)
        with torch.device("meta"):
            net = outline(entry.name, shape=shape, classes=2)()
        known = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
        for module in net.modules():
            own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            assert not own or isinstance(module, known), (entry.name, type(module))


def test_norms_start_as_the_identity() -> None:
    norm = materialise(lambda: nn.BatchNorm2d(4), 0)
    x = torch.linspace(-1, 1, 32).view(2, 4, 2, 2)
    assert torch.allclose(norm.eval()(x), x, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "shape", "classes", "words"),
    [
        ("smal-cnn", (1, 8, 8), 10, "no network 'smal-cnn'; did you mean small-cnn"),
        ("qqqq", (1, 8, 8), 10, "preact-resnet18"),
        ("cnn", (1, 8, 8), 1, "classes is 1"),
        ("cnn", (64,), 10, r"not \(64,\); take zoo:mlp"),
        ("preact-resnet18", (3, 4, 4), 10, "sides of at least 8"),
        ("mlp", (), 10, r"shape is \(\)"),
        ("mlp", (0,), 10, r"shape is \(0,\)"),
    ],
)
def test_bad_requests_are_named(name: str, shape: tuple[int, ...], classes: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        build(name, shape=shape, classes=classes)


def test_the_catalogue_can_be_listed() -> None:
    assert len({e.name for e in ZOO}) == len(ZOO) == 11
    assert all(e.source and e.use for e in ZOO)
