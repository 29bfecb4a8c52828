"""Cheap and paced training: every view and term against a plain re-derivation; what is remembered; what is refused."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from adamant.attacks import PGD
from adamant.calling import untouched
from adamant.errors import InputError
from adamant.random import Rng
from adamant.runtime.knobs import Ramp
from adamant.threats import L0, L1, L2, Linf
from adamant.training import recipes
from adamant.training.inner import Stages
from adamant.training.onestep import Carried, Guided, Overshoot, Remembered
from adamant.training.outer import Times
from adamant.training.paced import AtMargin, Early, OwnBudget
from adamant.training.parts import Batch
from adamant.training.points import noise, unboxed
from adamant.training.step import strengthened
from adamant.training.terms import Apart, Hinged, Misaligned, Nuclear
from adamant.training.views import Views, sloped

N, D, K, EPS = 12, 6, 3, 0.2
THREAT = Linf(EPS)


def net(seed: int = 0, width: int = 8) -> nn.Sequential:
    torch.default_generator.manual_seed(seed)
    return nn.Sequential(nn.Linear(D, width), nn.Tanh(), nn.Linear(width, K)).eval()


def a_batch(n: int = N, done: float = 0.0) -> Batch:
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(n, D, generator=g), torch.randint(0, K, (n,), generator=g)
    return Batch(x, y, torch.arange(n).flip(0), Rng.of(5, n), done=done)


def grad(model: nn.Module, z: Tensor, y: Tensor) -> Tensor:
    z = z.detach().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(z), y, reduction="sum"), z)[0]


def made(inner, model: nn.Module, b: Batch, threat=THREAT, memory=None) -> dict[str, Tensor]:
    with untouched(model):
        return inner(model, b, threat, {} if memory is None else memory)


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-4)


# ---- views


def test_fast_is_one_step_of_a_quarter_more_than_the_budget_from_a_random_start() -> None:
    """Algorithm 3 of Wong et al., 2020: delta = U(-eps, eps), delta += 1.25 eps sign(g), clipped to ball and box."""
    model, b = net(), a_batch()
    z = THREAT.sample(b.x, b.rng.fold("start"))
    z = z + 1.25 * EPS * grad(model, z, b.y).sign()
    same(made(recipes.fast().inner, model, b)["adv"], z.clamp(b.x - EPS, b.x + EPS).clamp(0, 1))


def test_noise_is_that_of_the_ball_and_then_clipped() -> None:
    x = torch.zeros(400, 50)
    z = noise(Linf(0.3), x, Rng.of(0, 400))
    assert 0.48 < float((z == 0).double().mean()) < 0.52
    assert 0.145 < float(z[z > 0].mean()) < 0.155
    assert float(z.max()) <= 0.3
    assert float(noise(Linf(0.3, box=(-1.0, 1.0)), x, Rng.of(0, 400)).min()) < -0.29


def test_overshoot_leaves_the_ball_and_not_the_box() -> None:
    """N-FGSM: x + U(-2 eps, 2 eps) into the box, + eps sign(g) into the box, and no ball."""
    model, b = net(), a_batch()
    eta = (unboxed(Linf(2 * EPS)).sample(b.x, b.rng.fold("start")) - b.x) / (2 * EPS)
    assert -1 <= eta.min() < -0.8
    assert 0.8 < eta.max() <= 1
    z = (b.x + 2 * EPS * eta).clamp(0, 1)
    z = (z + EPS * grad(model, z, b.y).sign()).clamp(0, 1)
    found = made(recipes.nfgsm().inner, model, b)["adv"]
    same(found, z)
    assert int(THREAT.contains(found, b.x).sum()) < 3
    assert Linf(3 * EPS * 1.001).contains(found, b.x).all()


def test_carried_takes_the_gradient_of_the_training_pass() -> None:
    """Free: delta = clip(delta + eps sign(g)) in the ball alone, whichever row sits there next."""
    b, memory, part = a_batch(4), {}, Carried()
    assert torch.equal(made(part, net(), b, memory=memory)["adv"], b.x)
    delta = torch.zeros(4, D)
    for i in range(3):
        g = torch.randn(4, D, generator=torch.Generator().manual_seed(i)) * 1e-9
        part.learn(b, g, THREAT, memory)
        delta = (delta + EPS * g.sign()).clamp(-EPS, EPS)
        same(memory["carried"], delta)
    other = replace(b, x=1 - b.x, places=b.places + 50)
    same(made(part, net(), other, memory=memory)["adv"], (other.x + delta).clamp(0, 1))


def test_remembered_is_a_step_from_where_momentum_led() -> None:
    """FGSM-MEP: m = g / |g| + .3 m; adv = P(start + eps sign g); the next start = P(start + eps sign m)."""
    model, b, memory, part = net(), a_batch(), {}, Remembered()
    part.refresh(model, b.x, b.y, THREAT, Rng.of(1, N), memory)
    start, m = memory["prior.start"].clone(), torch.zeros(N, D)
    same(start.abs(), torch.full((N, D), EPS))
    assert 0.3 < float((start > 0).double().mean()) < 0.7
    for _ in range(3):
        views = made(part, model, b, memory=memory)
        z = (b.x + start[b.places]).clamp(0, 1)
        g = grad(model, z, b.y)
        m[b.places] = 0.3 * m[b.places] + g / g.abs().mean(1, keepdim=True)
        ahead = (z + EPS * m[b.places].sign()).clamp(b.x - EPS, b.x + EPS).clamp(0, 1)
        same(views["start"], z)
        same(views["adv"], (z + EPS * g.sign()).clamp(b.x - EPS, b.x + EPS).clamp(0, 1))
        start[b.places] = ahead - b.x
        same(memory["prior.start"], start)
        same(memory["prior.momentum"], m)


def test_remembered_begins_anew_after_so_many_epochs() -> None:
    b, memory, part = a_batch(), {}, Remembered(reset=2)
    for epoch in range(5):
        part.refresh(net(), b.x, b.y, THREAT, Rng.of(epoch, N), memory)
        assert (float(memory["prior.momentum"].sum()) == 0) == (epoch % 2 == 0)
        memory["prior.momentum"] = memory["prior.momentum"] + 1


@pytest.mark.parametrize("nuclear", [False, True], ids=["gat", "nuat"])
def test_guided_climbs_the_loss_and_for_half_the_rows_the_guide(nuclear) -> None:
    model, b, lam = net(), a_batch(done=0.5), 8.0
    made_of = Nuclear("clean", "adv") if nuclear else Apart("clean", "adv")
    corner = b.rng.fold("start").normal(D).sign()
    z = (b.x + 0.5 * EPS * corner).clamp(0, 1).requires_grad_()
    clean, now = model(b.x).detach(), model(z)
    if nuclear:
        guide = torch.linalg.svdvals(clean - now).sum() / N
    else:
        guide = (clean.softmax(1) - now.softmax(1)).square().sum(1)
    coin = b.rng.fold("guided").integers(2)
    assert 0 < int(coin.sum()) < N
    score = F.cross_entropy(now, b.y, reduction="none") + coin * lam * 0.5 * guide
    z = z + EPS * torch.autograd.grad(score.sum(), z)[0].sign()
    part = Guided(guide=Times(lam, made_of, Ramp(until=1.0)))
    same(made(part, model, b)["adv"], z.detach().clamp(b.x - EPS, b.x + EPS).clamp(0, 1))


@pytest.mark.parametrize(("done", "after"), [(0.0, 0), (0.34, 1), (0.99, 2), (1.0, 2)])
def test_early_stops_so_many_steps_after_a_row_fell(done, after) -> None:
    model, b, part = net(), a_batch(40, done), Early(steps=6, rate=0.4)
    expected = THREAT.sample(b.x, b.rng.fold("start"))
    for i in range(40):
        left = after
        for _ in range(6):
            if int(model(expected[i : i + 1]).argmax()) != int(b.y[i]):
                if left == 0:
                    break
                left -= 1
            z = expected[i : i + 1]
            z = z + 0.4 * EPS * grad(model, z, b.y[i : i + 1]).sign()
            expected[i] = z.clamp(b.x[i] - EPS, b.x[i] + EPS).clamp(0, 1)[0]
    same(made(part, model, b)["adv"], expected)


def test_own_budgets_grow_where_rows_stand_and_shrink_where_they_fall() -> None:
    model, b, memory, part = net(), a_batch(40), {}, OwnBudget(attack=PGD(steps=3, rate=0.5), grow=0.3, high=1.5)
    part.refresh(model, b.x, b.y, THREAT, b.rng, memory)
    share = torch.ones(40)
    for _ in range(6):
        z = made(part, model, b, memory=memory)["adv"]
        reach = EPS * share[b.places]
        assert ((z - b.x).abs().amax(1) <= reach + 1e-6).all()
        assert ((z - b.x).abs().amax(1) >= reach * 0.4 - 1e-6).all()
        stands = model(z).argmax(1) == b.y
        share[b.places] = (share[b.places] + torch.where(stands, 0.3, -0.3)).clamp(0.0, 1.5)
        same(memory["budgets"], share)
        part.refresh(model, b.x, b.y, THREAT, b.rng, memory)  # an epoch later nothing is forgotten
    assert share.min() == 0
    assert share.max() == 1.5


def test_at_margin_is_just_beyond_the_boundary() -> None:
    """On an affine model the margin along the attack is known: f(x) + s g(z - x) = 0."""
    torch.default_generator.manual_seed(3)
    model, b = nn.Linear(D, 2).eval(), a_batch(40)
    with torch.no_grad():
        model.bias -= model(b.x).median(0).values
    b = replace(b, y=(model(b.x).argmax(1) + (torch.arange(40) < 5)) % 2)
    part = AtMargin(attack=PGD(steps=4, rate=0.6), far=0.5, rounds=12)
    found = made(part, model, b)["adv"]
    w = model.weight.detach()
    sign = 2.0 * b.y - 1
    margin = sign * (model(b.x) @ torch.tensor([-1.0, 1.0])).detach()
    worst = (b.x - 0.5 * EPS * sign[:, None] * (w[1] - w[0]).sign()).clamp(0, 1)
    least = sign * (model(worst) @ torch.tensor([-1.0, 1.0])).detach()
    crosses = (margin > 0) & (least < 0)
    assert 5 < int(crosses.sum()) < 33
    s = (margin / (margin - least))[:, None]
    expected = torch.where(crosses[:, None], b.x + s * (worst - b.x), b.x)
    torch.testing.assert_close(found, expected, atol=0.5 * EPS / 2**11, rtol=0)
    assert (model(found).argmax(1) != b.y)[crosses].all()


# ---- terms


def views(model: nn.Module, b: Batch, *slopes: str) -> Views:
    inputs = {"clean": b.x, "adv": (b.x + 0.1).clamp(0, 1)}
    return Views(sloped(inputs, slopes), b.y, model, threat=THREAT, rng=b.rng)


def test_misaligned_is_one_less_the_cosine_of_two_input_gradients() -> None:
    model, b = net(), a_batch()
    with torch.no_grad():
        model[0].weight *= 5
    beside = noise(THREAT, b.x, b.rng.fold("align"))
    expected = 1 - F.cosine_similarity(grad(model, b.x, b.y), grad(model, beside, b.y))
    found = Misaligned()(views(model, b, "clean"))
    same(found.detach(), expected)
    assert expected.max() > 0.01
    one, two = (torch.autograd.grad(f.sum(), model[0].weight)[0] for f in (found, _by_hand(model, b, beside)))
    same(one, two)
    assert one.abs().max() > 1e-4


def _by_hand(model: nn.Module, b: Batch, beside: Tensor) -> Tensor:
    gradients = []
    for z in (b.x.clone(), beside):
        z.requires_grad_()
        loss = F.cross_entropy(model(z), b.y, reduction="sum")
        gradients.append(torch.autograd.grad(loss, z, create_graph=True)[0])
    return 1 - F.cosine_similarity(*gradients)


def test_rows_without_a_gradient_count_as_aligned() -> None:
    model, b = net(), a_batch()
    flat = nn.Sequential(model, nn.Hardtanh(100, 101))  # saturated: the same logits everywhere
    v = views(flat, b, "clean")
    found = Misaligned()(v)
    assert torch.equal(found.detach(), torch.zeros(N))
    found.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_terms_on_numbers() -> None:
    model, b = net(), a_batch()
    v, clean = views(model, b), model(b.x)
    adv = model((b.x + 0.1).clamp(0, 1))
    same(Apart("clean", "adv")(v), (clean.softmax(1) - adv.softmax(1)).pow(2).sum(1))
    same(Nuclear("clean", "adv")(v).sum(), torch.linalg.svdvals(clean - adv).sum())
    assert len(Nuclear("clean", "adv")(v)) == N


def test_hinged_counts_rows_that_moved_or_are_wrong() -> None:
    model, b = net(), a_batch()
    right = model(b.x).argmax(1) == b.y
    z = b.x.clone()
    z[:6] = (z[:6] + 0.05).clamp(0, 1)
    counts = (torch.arange(N) < 6) | ~right
    assert int((~counts).sum()) > 0
    found = Hinged("adv")(Views({"clean": b.x, "adv": z}, b.y, model))
    same(found, F.cross_entropy(model(z), b.y, reduction="none") * counts)


# ---- what it costs, and how it grows

PLAIN = {r().name: r() for r in (*recipes.cheap.CATALOGUE, *recipes.curricula.CATALOGUE)}


class Count(TorchDispatchMode):
    """Multiplications in products of matrices."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            a, b = args[-2:]
            self.total += len(a) * a.shape[1] * b.shape[1]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", PLAIN)
def test_costs_are_those_that_a_counter_finds(name) -> None:
    """Multiplications of one whole step, over those of a forward; a deep stack, so that its ends hardly count."""
    recipe = PLAIN[name]
    if isinstance(recipe.inner, Stages):
        recipe = replace(recipe, inner=recipe.inner.parts[-1])
    if isinstance(recipe.inner, Early):  # so that no row falls: what it says is the most
        recipe = replace(recipe, inner=replace(recipe.inner, after=(99,)))
    width, b, memory = 40, a_batch(8), {}
    torch.default_generator.manual_seed(0)
    middle = [layer for _ in range(30) for layer in (nn.Linear(width, width), nn.Tanh())]
    model = nn.Sequential(nn.Linear(D, width), *middle, nn.Linear(width, K)).eval()
    for part in [recipe.inner]:
        if hasattr(part, "refresh"):
            part.refresh(model, b.x, b.y, THREAT, b.rng, memory)
    with Count() as one, torch.no_grad():
        model(b.x)
    with Count() as counted:
        points = made(recipe.inner, model, b, memory=memory)
        slopes = ("clean",) if name == "gradalign" else ("adv",) if name == "free" else ()
        v = Views(sloped({"clean": b.x, **points}, slopes), b.y, model, threat=THREAT, rng=b.rng)
        recipe.outer(v).mean().backward()
    assert counted.total / one.total == pytest.approx(recipe.cost, rel=0.05)


@pytest.mark.parametrize("inner", [Overshoot(), Remembered(), Guided()], ids=repr)
def test_stronger_is_the_same_path_in_more_steps(inner) -> None:
    twice = strengthened(inner, 2)
    assert (twice.steps, twice.rate) == (3, pytest.approx(1 / 3))
    assert twice.cost == inner.cost + 4
    model, b, memory = net(width=32), a_batch(60), {}
    if isinstance(inner, Remembered):
        inner.refresh(model, b.x, b.y, THREAT, b.rng, memory)
    loss = [F.cross_entropy(model(made(i, model, b, memory=dict(memory))["adv"]), b.y).item() for i in (inner, twice)]
    assert loss[1] > 0.97 * loss[0]
    assert strengthened(Carried(), 2) == Carried(rate=0.25)


def test_the_curriculum_rises() -> None:
    recipe = recipes.curriculum(steps=(1, 5), until=0.4, low=0.2)
    b, model, seen = a_batch(), net(), []
    handle = model.register_forward_hook(lambda *_: seen.append(1))
    for done, steps, share in [(0.0, 1, 0.2), (0.19, 1, 0.58), (0.21, 5, 0.62), (0.9, 5, 1.0)]:
        seen.clear()
        made(recipe.inner, model, replace(b, done=done))
        assert len(seen) == steps
        assert recipe.eps(done) == pytest.approx(share)
    handle.remove()


# ---- other geometries, and what is refused


@pytest.mark.parametrize("threat", [L2(0.4), L1(0.8)], ids=repr)
@pytest.mark.parametrize("name", PLAIN)
def test_every_recipe_fits_every_ball(name, threat) -> None:
    model, b, memory, part = net(), a_batch(), {}, PLAIN[name].inner
    if hasattr(part, "refresh"):
        part.refresh(model, b.x, b.y, threat, b.rng, memory)
    for view, z in made(part, model, b, threat, memory).items():
        reach = {"nfgsm": 3.0, "mma": 1.5}.get(name, 1.0) * 1.001
        assert (threat.size(z, b.x) <= reach * threat.eps).all(), view
        assert threat.at(9.0).contains(z, b.x).all()
        assert not z.requires_grad


@pytest.mark.parametrize("name", ["nfgsm", "free", "prior", "iaat", "mma"])
def test_sets_without_a_ball_are_refused(name) -> None:
    b, part, memory = a_batch(), PLAIN[name].inner, {}
    if name == "iaat":
        part.refresh(net(), b.x, b.y, L0(2), b.rng, memory)
    with pytest.raises(InputError, match="has none: train within Linf, L2 or L1"):  # noqa: PT012
        if name == "prior":
            part.refresh(net(), b.x, b.y, L0(2), b.rng, memory)
        else:
            made(part, net(), b, L0(2), memory)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: recipes.free(replay=1), "at least two passes over each batch"),
        (lambda: recipes.nfgsm(noise=0.0), "must be above 0, got 0.0"),
        (lambda: recipes.gradalign(lam=-1.0), "lam must not be negative"),
        (lambda: recipes.prior(lam=-1.0), "lam must not be negative"),
        (lambda: recipes.prior(reset=0), "reset and steps must be above 0"),
        (lambda: recipes.gat(lam=-1.0), "lam must not be negative"),
        (lambda: recipes.nuat(lam=-1.0), "lam must not be negative"),
        (lambda: recipes.curriculum(steps=()), "stages of at least one step"),
        (lambda: recipes.curriculum(until=1.5), "until=1.5"),
        (lambda: recipes.fat(after=(0, -1)), "none below 0"),
        (lambda: recipes.iaat(high=0.5), "high=0.5"),
        (lambda: recipes.mma(far=0.0), "far above 0"),
        (lambda: recipes.mma(clean=1.0), "from 0 to below 1, got 1"),
    ],
)
def test_settings_without_a_meaning(make, said) -> None:
    with pytest.raises(InputError, match=said):
        make()
