"""Bounds: sound, exact where they can be, the same as those of auto_LiRPA, and refused where they are not known."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from adamant.attacks import PGD, Square
from adamant.batch import PerRow, Shared
from adamant.bounds import Bounded, Intervals, Lines, Region, initialise_for_bounds, margins, surest
from adamant.bounds.ways import tighten
from adamant.engine import run
from adamant.errors import InputError, ModelError
from adamant.goals import Untargeted
from adamant.losses import Margin
from adamant.models.wrap import Normalised, OneLogit
from adamant.models.zoo import build
from adamant.random import Rng
from adamant.threats import L0, L1, L2, Linf

OPEN = (-math.inf, math.inf)
WAYS = [Intervals(), Lines(), Lines(slope=0.0), Lines(everywhere=True)]


class Kept(nn.Module):
    """A residual block, with what the zoo's nets call beside modules."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(2, 4, 1)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.c(x) - self.b(F.relu(self.a(1 - 2 * x))) + 0.5)
        return self.out(h.mean((2, 3)))


def nets() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    flat = [nn.Flatten(), nn.Linear(72, 20)]
    made = {
        "mlp": nn.Sequential(*flat, nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3)),
        "strided": nn.Sequential(
            nn.Conv2d(2, 4, 4, stride=2, padding=1), nn.ReLU(), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(4, 3)
        ),
        "pooled": nn.Sequential(
            nn.Conv2d(2, 4, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(1),
            nn.Linear(4, 3),
        ),
        "normed": nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(0.1), nn.Dropout(), nn.Flatten(), nn.Linear(64, 8),
            nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3),
        ),
        "kept": Kept(),
        "normalised": Normalised(nn.Sequential(*flat, nn.ReLU(), nn.Linear(20, 3)), (0.4, 0.5), (0.2, 0.3)),
    }  # fmt: skip
    acts = {
        "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "elu": nn.ELU(), "silu": nn.SiLU(), "gelu": nn.GELU(),
        "gelu-tanh": nn.GELU(approximate="tanh"), "softplus": nn.Softplus(), "relu6": nn.ReLU6(),
    }  # fmt: skip
    for name, act in acts.items():
        made[name] = nn.Sequential(nn.Flatten(), nn.Linear(72, 20), act, nn.Linear(20, 20), act, nn.Linear(20, 3))
    for net in made.values():
        for module in net.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
                nn.init.uniform_(module.weight, -1.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
            elif isinstance(module, (nn.Linear, nn.Conv2d)):
                module.weight.data *= 2.5
        net.eval()
    return made


NETS = nets()


def rows(n: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 2, 6, 6, generator=g)
    return x, torch.randint(0, 3, (n,), generator=g)


def gaps(logits: Tensor, y: Tensor) -> Tensor:
    return logits.gather(1, y[:, None]) - logits


# ---- sound


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("bound", WAYS, ids=repr)
def test_no_member_has_a_smaller_margin(name, bound) -> None:
    """Corners, random members, and where gradients lead to: all margins are above their bounds."""
    net, (x, y) = NETS[name], rows()
    for threat in (Linf(0.03), Linf(0.3), L2(0.4), L1(1.5)):
        low = margins(net, x, y, threat, bound=bound)
        assert torch.equal(low.gather(1, y[:, None]), torch.zeros(len(y), 1))
        for i in range(6):
            z = threat.sample(x, Rng.of(i, len(x)))
            if i % 2:  # far out, and uphill for one class
                z.requires_grad_(True)
                (g,) = torch.autograd.grad(net(z)[:, i // 2 % 3].sum(), z)
                z = threat.project(threat.move(z.detach(), g, 2.0), x)
            assert (gaps(net(z), y) >= low - 1e-4).all()


@pytest.mark.parametrize("name", ["normed", "kept", "gelu"])
@pytest.mark.parametrize("threat", [Linf(0.02), L2(0.15), L1(0.5)], ids=repr)
def test_no_row_that_a_bound_holds_is_broken_by_an_attack(name, threat) -> None:
    """The two halves of the house test each other; and the bounds hold some rows, the attacks break others."""
    net, (x, _) = NETS[name], rows(40, 1)
    y = net(x).argmax(1)
    held = torch.stack([surest(margins(net, x, y, threat, bound=b), y) > 1e-5 for b in WAYS]).any(0)
    for attack in (PGD(steps=20, loss=Margin()), Square(steps=60)):
        if isinstance(attack, Square) and not isinstance(threat, attack.threats):
            continue
        broken = run(attack, net, x, Untargeted(y), threat).broken
        assert not (held & broken).any()
    assert held.any()


@given(st.integers(0, 10**6), st.sampled_from([Linf(0.1), L2(0.5), L1(1.0)]), st.sampled_from(WAYS))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_sound_on_random_networks(seed, threat, bound) -> None:
    g = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.LeakyReLU(0.2), nn.Linear(5, 3)).double()
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64)
    x, y = torch.rand(2, 4, generator=g, dtype=torch.float64), torch.randint(0, 3, (2,), generator=g)
    low = margins(net, x, y, threat, bound=bound)
    z = threat.sample(x.repeat_interleave(200, 0), Rng.of(seed, 400))
    seen = gaps(net(z), y.repeat_interleave(200)).view(2, 200, 3).amin(1)
    assert (seen >= low - 1e-12).all()


# ---- exact


@pytest.mark.parametrize("bound", WAYS, ids=repr)
def test_exact_on_one_layer(bound) -> None:
    """In the box: min of w . z is at its corner; on an open L2 or L1 ball: w . x - eps |w|_dual."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(72, 3)).double()
    x, y = rows()
    x = x.double()
    w, b = net[1].weight.detach(), net[1].bias.detach()
    w, b = w[y][:, None] - w, b[y][:, None] - b
    low, high = (x - 0.2).clamp(0, 1).flatten(1)[:, None], (x + 0.2).clamp(0, 1).flatten(1)[:, None]
    boxed = torch.where(w > 0, w * low, w * high).sum(2) + b
    assert torch.allclose(margins(net, x, y, Linf(0.2), bound=bound), boxed, atol=1e-12)
    middle = (w * x.flatten(1)[:, None]).sum(2) + b
    for threat, dual in ((L2(0.2, box=OPEN), w.norm(dim=2)), (L1(0.2, box=OPEN), w.abs().amax(2))):
        assert torch.allclose(margins(net, x, y, threat, bound=bound), middle - 0.2 * dual, atol=1e-12)
    free = torch.arange(72) % 3 == 0
    held = L2(0.2, box=OPEN, mask=Shared(free.view(2, 6, 6)))
    assert torch.allclose(margins(net, x, y, held, bound=bound), middle - 0.2 * (w * free).norm(dim=2), atol=1e-12)


def test_intervals_of_a_layer_in_between_are_exact() -> None:
    """Of the first layer, against all corners; and through ReLU and a second layer, against a plain loop."""
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    x, y = torch.rand(3, 4, dtype=torch.float64), torch.tensor([0, 1, 0])
    corners = torch.cartesian_prod(*[torch.tensor([-0.1, 0.1], dtype=torch.float64)] * 4)
    node = net[0](Bounded(x, Region.around(x, Linf(0.1, box=OPEN))))
    seen = net[0](x[:, None] + corners)
    assert torch.allclose(node.interval[0], seen.amin(1))
    assert torch.allclose(node.interval[1], seen.amax(1))
    low, high = seen.amin(1).clamp_min(0), seen.amax(1).clamp_min(0)
    w, b = net[2].weight.detach(), net[2].bias.detach()
    found = margins(net, x, y, Linf(0.1, box=OPEN))
    for i in range(3):
        v, j = w[y[i]] - w[1 - y[i]], 1 - y[i]
        by_hand = sum(min(v[k] * low[i, k], v[k] * high[i, k]) for k in range(3)) + b[y[i]] - b[j]
        assert found[i, j].item() == pytest.approx(by_hand.item(), abs=1e-12)


def test_sums_and_differences() -> None:
    one, other = nn.Linear(4, 3), nn.Linear(4, 3)
    x = torch.rand(3, 4)
    node = Bounded(x, Region.around(x, Linf(0.1)))
    (low, high), (least, most) = one(node).interval, other(node).interval
    made = {
        "plus": (one(node) + other(node), low + least, high + most),
        "minus": (one(node) - other(node), low - most, high - least),
        "from two": (2 - one(node), 2 - high, 2 - low),
        "times": (one(node) * -3.0, -3 * high, -3 * low),
        "over": (one(node) / torch.arange(1, 4), low / torch.arange(1, 4), high / torch.arange(1, 4)),
        "minus one": (-one(node) - 1, -high - 1, -low - 1),
        "by name": (one(node).add(1.0), low + 1, high + 1),
    }  # fmt: skip
    for name, (found, expected, above) in made.items():
        assert torch.allclose(found.interval[0], expected, atol=1e-6), name
        assert torch.allclose(found.interval[1], above, atol=1e-6), name
    assert torch.allclose((2 - one(node)).point, 2 - one(x))
    with pytest.raises(ModelError, match="The model calls mul"):
        one(node) * other(node)
    with pytest.raises(ModelError, match="The model calls div"):
        torch.div(torch.ones(3), one(node))


def test_lines_are_exact_where_no_sign_is_open() -> None:
    """Within a budget in which no ReLU changes its sign the network is affine, and lines find its least margin."""
    net, (x, y) = NETS["mlp"].double(), rows()
    x = x.double()
    low = margins(net, x, y, Linf(1e-5, box=OPEN), bound=Lines())
    for j in range(3):
        z = x.clone().requires_grad_(True)
        gap = gaps(net(z), y)[:, j]
        (g,) = torch.autograd.grad(gap.sum(), z)
        assert torch.allclose(low[:, j], gap.detach() - 1e-5 * g.flatten(1).abs().sum(1), atol=1e-9)
    net.float()


@pytest.mark.parametrize("act", [nn.SiLU(), nn.GELU(), nn.GELU(approximate="tanh"), nn.LeakyReLU(0.3)], ids=repr)
def test_intervals_of_activations_hold_all_values_and_not_much_more(act) -> None:
    g = torch.Generator().manual_seed(0)
    low = torch.randn(2000, 1, generator=g, dtype=torch.float64) * 2
    high = low + torch.rand(2000, 1, generator=g, dtype=torch.float64) * 4
    region = Region(low, Linf(1.0), (low, high))
    found = act(Bounded(low, region)).interval
    seen = act(low + (high - low) * torch.linspace(0, 1, 4001, dtype=torch.float64))
    assert (seen.amin(1) >= found[0][:, 0] - 1e-14).all()
    assert (seen.amax(1) <= found[1][:, 0] + 1e-14).all()
    assert (seen.amin(1) - found[0][:, 0]).max() < 1e-5
    assert (found[1][:, 0] - seen.amax(1)).max() < 1e-12


# ---- how tight


def waves(*shape: int, phase: float, size: float) -> Tensor:
    n = math.prod(shape)
    return (torch.sin(torch.arange(n, dtype=torch.float64) * 1.7 + phase) * size).view(shape)


def known() -> tuple[nn.Module, Tensor, Tensor]:
    """A network without chance, for figures of other libraries."""
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6),
        nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 4),
    ).double()  # fmt: skip
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            fan = p[0].numel() if p.ndim > 1 else 4
            p.copy_(waves(*p.shape, phase=i, size=(3 / fan) ** 0.5) + (1.0 if i == 4 else 0.0))
        net[3].running_mean.copy_(waves(6, phase=1, size=0.3))
        net[3].running_var.copy_(1.2 + waves(6, phase=2, size=0.5))
    return net.eval(), 0.5 + waves(3, 1, 8, 8, phase=0.5, size=0.5), torch.tensor([0, 1, 3])


# auto_LiRPA 0.7.1 (commit a050a3d) on torch 2.13, float64, margins logit_y - logit_j by C, conv_mode matrix.
LIRPA = {
    "IBP": [[0.0, 1.766154123, 0.272687537, -1.929465694], [-4.453156812, 0.0, -2.031417975, -5.245607499],
            [-0.860052032, 2.000255003, 1.591355526, 0.0]],
    "CROWN-IBP": [[0.0, 3.000622618, 2.074581664, -0.784913142], [-3.189981122, 0.0, -0.919412412, -3.840501297],
                  [0.320008055, 3.41532898, 2.791909444, 0.0]],
    "CROWN": [[0.0, 3.047898425, 2.281154656, -0.608341079], [-3.139394811, 0.0, -0.746538021, -3.681971153],
              [0.474592821, 3.533946866, 2.847365479, 0.0]],
}  # fmt: skip
# The same in L2 (0.1) and L1 (0.3) balls without a box; ours are no looser.
LIRPA_BALLS = {
    (L2(0.1, box=OPEN), "IBP"): [[0.0, 0.362994385, -1.835637877, -3.357743417], [-6.028672176, 0.0, -3.317911941,
                                  -7.125111348], [-2.289081714, 0.36000181, 0.367119545, 0.0]],
    (L2(0.1, box=OPEN), "CROWN"): [[0.0, 3.047776851, 2.279592268, -0.608779573], [-3.144592849, 0.0, -0.74975941,
                                    -3.686363231], [0.471262122, 3.525346465, 2.846189305, 0.0]],
    (L1(0.3, box=OPEN), "CROWN"): [[0.0, 2.990102879, 2.200414663, -0.643377559], [-3.201420485, 0.0, -0.785989544,
                                    -3.729324241], [0.421471991, 3.487591404, 2.805023268, 0.0]],
}  # fmt: skip
NAMED = {"IBP": Intervals(), "CROWN-IBP": Lines(), "CROWN": Lines(everywhere=True)}


@pytest.mark.parametrize("name", NAMED)
def test_the_figures_of_auto_lirpa(name) -> None:
    net, x, y = known()
    ours = margins(net, x, y, Linf(0.02), bound=NAMED[name])
    assert torch.allclose(ours, torch.tensor(LIRPA[name], dtype=torch.float64), atol=2e-9)
    single = margins(net.float(), x.float(), y, Linf(0.02), bound=NAMED[name])
    assert torch.allclose(single.double(), ours, atol=2e-5)


@pytest.mark.parametrize(("threat", "name"), LIRPA_BALLS, ids=str)
def test_no_looser_than_auto_lirpa_in_other_balls(threat, name) -> None:
    net, x, y = known()
    ours = margins(net, x, y, threat, bound=NAMED[name])
    theirs = torch.tensor(LIRPA_BALLS[threat, name], dtype=torch.float64)
    assert (ours >= theirs - 1e-9).all()
    assert (ours - theirs).max() < 0.3
    for i in range(50):
        z = threat.sample(x, Rng.of(i, 3))
        assert (gaps(net(z), y) >= ours).all()


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("eps", [0.01, 0.1, 0.5])
def test_lines_with_slope_zero_are_never_looser_than_intervals(name, eps) -> None:
    """Each line then lies within the rectangle of the interval; with slopes of one that need not be."""
    net, (x, y) = NETS[name], rows()
    ways = (Intervals(), Lines(slope=0.0), Lines(slope=0.0, everywhere=True))
    by = [margins(net, x, y, Linf(eps), bound=b) for b in ways]
    assert (by[1] >= by[0] - 1e-4).all()
    assert (by[2] >= by[1] - 1e-4).all()
    if name in ("mlp", "strided", "normed", "kept"):
        assert (by[1] > by[0] + 1e-3).any()


def test_tightening_changes_what_it_is_asked_for_and_loosens_nothing() -> None:
    """Or bounds of a row would hang on which of its neighbours' signs are open."""
    net, (x, _) = NETS["mlp"], rows()
    node = net[3](net[2](net[1](net[0](Bounded(x, Region.around(x, Linf(0.2)))))))
    low, high = (side.clone() for side in node.interval)
    which = torch.zeros(5, 20, dtype=torch.bool)
    which[1, 3:9] = which[4, 7] = True
    tighten(node, which, None)
    assert torch.equal(node.interval[0][~which], low[~which])
    assert torch.equal(node.interval[1][~which], high[~which])
    assert (node.interval[0][which] >= low[which]).all()
    assert (node.interval[1][which] <= high[which]).all()
    assert (node.interval[1][which] < high[which] - 0.01).any()


def test_a_larger_budget_holds_less_and_the_box_helps() -> None:
    net, (x, y) = NETS["mlp"], rows()
    for bound in WAYS[:3]:
        small, large = (margins(net, x, y, Linf(e), bound=bound) for e in (0.05, 0.1))
        assert (large <= small).all()
        assert (
            margins(net, x, y, Linf(0.4, box=OPEN), bound=bound) <= margins(net, x, y, Linf(0.4), bound=bound)
        ).all()
        fixed = Linf(0.1, mask=Shared(torch.zeros(2, 6, 6, dtype=torch.bool)))
        assert torch.allclose(margins(net, x, y, fixed, bound=bound), gaps(net(x), y), atol=1e-5)
        half = Shared(torch.arange(72).view(2, 6, 6) % 2 == 0)
        for threat in (Linf(0.1), L2(0.5), L1(1.0)):
            masked = type(threat)(threat.eps, mask=half)
            assert (margins(net, x, y, masked, bound=bound) >= margins(net, x, y, threat, bound=bound) - 1e-5).all()


# ---- rows by themselves, and everything as it was


@pytest.mark.parametrize("bound", WAYS, ids=repr)
@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)], ids=repr)
def test_a_row_has_the_same_bounds_in_any_company(bound, threat) -> None:
    net, (x, y) = NETS["kept"], rows(7)
    whole = margins(net, x, y, threat, bound=bound)
    assert torch.allclose(margins(net, x.flip(0), y.flip(0), threat, bound=bound).flip(0), whole, atol=1e-4)
    alone = torch.cat([margins(net, x[i : i + 1], y[i : i + 1], threat, bound=bound) for i in range(7)])
    assert torch.allclose(alone, whole, atol=1e-4)
    each = margins(net, x, y, threat.at(PerRow([threat.eps * (1 + i) for i in range(7)])), bound=bound)
    assert torch.allclose(each[:1], whole[:1], atol=1e-4)
    assert torch.allclose(each[2:3], margins(net, x[2:3], y[2:3], threat.at(3 * threat.eps), bound=bound), atol=1e-4)


def test_the_model_is_as_it_was() -> None:
    net, (x, y) = nets()["normed"].train(), rows()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    margins(net, x, y, Linf(0.1))
    assert net.training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_while_it_trains_statistics_are_those_of_the_point() -> None:
    net, (x, _) = nets()["normed"].train(), rows(16)
    net[3].p = 0.0
    plain = nets()["normed"].train()
    plain[3].p = 0.0
    logits = plain(x)
    out = net(Bounded(x, Region.around(x, Linf(1e-7))))
    assert torch.allclose(out.point, logits, atol=1e-5)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(net.buffers(), plain.buffers(), strict=True))
    assert torch.allclose(out.interval[0], logits, atol=1e-3)
    assert torch.allclose(out.interval[1], logits, atol=1e-3)
    elsewhere = net(Bounded(x, Region.around(x.flip(0), Linf(1e-7))))  # statistics of x, bounds around others
    assert torch.allclose(elsewhere.interval[0], logits.flip(0), atol=1e-3)


def test_dropout_drops_the_same_for_all_that_an_input_can_be() -> None:
    x, _ = rows()
    out = F.dropout(Bounded(x, Region.around(x, Linf(0.1))), 0.5, True)
    dropped = out.point == 0
    assert 0.3 < dropped.float().mean() < 0.7
    assert (out.interval[0][dropped] == 0).all()
    assert (out.interval[1][dropped] == 0).all()
    assert torch.allclose(out.interval[1][~dropped], 2 * (x + 0.1).clamp(0, 1)[~dropped], atol=1e-5)


@pytest.mark.parametrize("name", ["small-cnn", "lenet", "cnn", "lenet5", "mlp", "wrn-16-4"])
def test_the_zoo_can_be_bounded(name) -> None:
    net = build(name, shape=(1, 8, 8), classes=4).eval()
    initialise_for_bounds(net)  # or intervals grow without measure from layer to layer
    x, y = torch.rand(2, 1, 8, 8), torch.tensor([0, 3])
    low = margins(net, x, y, Linf(1e-6))
    assert torch.allclose(low, gaps(net(x), y), atol=0.05)
    assert (low <= gaps(net(x), y) + 1e-4).all()


# ---- refusals


class Decides(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("lost")


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x else -x.flatten(1)


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (nn.Sequential(nn.Flatten(), nn.Softmax(1)), "The model calls softmax, which bounds do not go through"),
        (nn.Sequential(nn.Flatten(), nn.Hardswish()), "The model calls hardswish"),
        (nn.Sequential(nn.LayerNorm(6), nn.Flatten()), "The model calls layer_norm"),
        (OneLogit(nn.Sequential(nn.Flatten(), nn.Linear(72, 1))), "The model calls zeros_like"),
        (nn.Sequential(nn.Flatten(), nn.LeakyReLU(-0.1)), "a slope from 0 to 1, and the model has -0.1"),
        (nn.Sequential(nn.Flatten(), nn.LeakyReLU(1.1)), "a slope from 0 to 1, and the model has 1.1"),
        (nn.Flatten(0), "The model calls flatten across the rows"),
        (nn.ReLU(), r"Bounds are of logits \(rows, classes\), and the model returned \(5, 2, 6, 6\)"),
        (Decides(), "The model calls sum"),
        (nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten()), "by its batch even in eval mode"),
        (Branches(), "decides by its values"),
        (Raises(), "Bounds cannot go through the model: it raised KeyError: 'lost'"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_bounds_do_not_go_through_is_named(net, said) -> None:
    x, y = rows()
    with pytest.raises(ModelError, match=said):
        margins(net, x, y, Linf(0.1))


def test_threats_that_are_no_balls_are_refused() -> None:
    x, y = rows()
    with pytest.raises(InputError, match="Bounds are of the balls Linf, L2 and L1, and L0 is none of them"):
        margins(NETS["mlp"], x, y, L0(3))
    with pytest.raises(InputError, match="has none: give it one"):
        margins(NETS["mlp"], x, y, L2())
    with pytest.raises(InputError, match="Label 5 of row 0 is outside"):
        margins(NETS["mlp"], x, y + 3, Linf(0.1))
    for slope in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match="a slope from 0 to 1"):
            Lines(slope=slope)


# ---- initial weights


def test_initial_weights_keep_intervals_at_their_width() -> None:
    """Shi et al. (2021): deviation sqrt(2 pi) / fan-in; by default the intervals grow with each layer, here not."""
    net = nn.Sequential(*[m for _ in range(6) for m in (nn.Linear(200, 200), nn.ReLU())], nn.Linear(200, 200))
    x, widths = torch.rand(8, 200), {}
    for way in ("torch", "ours"):
        if way == "ours":
            initialise_for_bounds(net, seed=3)
        out = net(Bounded(x, Region.around(x, Linf(0.01, box=OPEN))))
        widths[way] = (out.interval[1] - out.interval[0]).mean().item() / 0.02
    assert 0.3 < widths["ours"] < 3
    assert widths["torch"] > 30
    assert net[0].weight.std().item() == pytest.approx(math.sqrt(2 * math.pi) / 200, rel=0.02)
    again = nn.Sequential(*[m for _ in range(6) for m in (nn.Linear(200, 200), nn.ReLU())], nn.Linear(200, 200))
    initialise_for_bounds(again, seed=3)
    assert torch.equal(again[4].weight, net[4].weight)
    assert not torch.equal(again[4].weight, again[2].weight)
    assert not again[4].bias.any()
