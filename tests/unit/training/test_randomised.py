"""Recipes for smoothed models: their formulas, the attack through the noise, and what they do to a small network."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions.normal import Normal
from torch.nn import functional as F

from adamant.attacks import FGSM, PGD
from adamant.attacks.starts import Here
from adamant.calling import untouched
from adamant.data import load_data
from adamant.errors import InputError
from adamant.random import Rng
from adamant.threats import L2
from adamant.training import Adam, Job, Plan, fit, recipes
from adamant.training.parts import Batch
from adamant.training.randomised import FromMean, MeanCE, MeanEntropy, Noisy, NoisyAscend, Radius, copies
from adamant.training.views import Views, cost_of

N, D, K = 8, 5, 3


def net() -> nn.Sequential:
    torch.default_generator.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 8), nn.ReLU(), nn.Linear(8, K))


def a_batch(places: Tensor | None = None, step: int = 0) -> Batch:
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(N, D, generator=g), torch.randint(0, K, (N,), generator=g)
    rows = torch.arange(N) if places is None else places
    return Batch(x[rows], y[rows], rows, Rng.of(5, rows).fold(step))


def views(n: int, scale: float = 1.0) -> tuple[Views, list[Tensor], Tensor]:
    model, b = net(), a_batch()
    inputs = {name: b.x + 0.5 * torch.randn(N, D) for name in copies(n)}
    v = Views(inputs, b.y, lambda z: scale * model(z))
    return v, [scale * model(z) for z in inputs.values()], b.y


# ---- noise


def test_noise_is_gaussian_keyed_by_row_step_and_copy() -> None:
    x = torch.zeros(400, 30)
    b = Batch(x, torch.zeros(400).long(), torch.arange(400), Rng.of(0, 400))
    made = Noisy(0.5, 3)(net(), b, L2(1.0), {})
    assert list(made) == ["noisy0", "noisy1", "noisy2"]
    drawn = torch.stack(list(made.values()))
    assert drawn.mean().abs() < 0.01
    assert drawn.std().item() == pytest.approx(0.5, rel=0.02)
    assert (drawn < -0.3).any()  # out of the box, as the smoothed model will see them
    assert torch.corrcoef(drawn.flatten(1)).triu(1).abs().max() < 0.05
    places = torch.tensor([5, 2])
    few, all_ = (Noisy(0.5, 2)(net(), a_batch(p), L2(1.0), {}) for p in (places, None))
    assert torch.equal(few["noisy1"], all_["noisy1"][places])
    assert not torch.equal(all_["noisy1"], Noisy(0.5, 2)(net(), a_batch(step=1), L2(1.0), {})["noisy1"])


@pytest.mark.parametrize("n", [1, 3])
def test_smoothadv_climbs_the_loss_of_the_mean_answer(n) -> None:
    """Salman et al. (2019), section 2.2, equation (S): ascent on -log mean p_y, over the same noise at each step."""
    model, b, sigma, eps = net().eval(), a_batch(), 0.3, 0.5
    threat = L2(eps, box=(-9.0, 9.0))
    noise = [v - b.x for v in Noisy(sigma, n)(model, b, threat, {}).values()]
    z = b.x
    for _ in range(4):
        z = z.detach().requires_grad_(True)
        mean = torch.stack([model(z + e).softmax(1) for e in noise]).mean(0)
        (g,) = torch.autograd.grad(-mean[range(N), b.y].log().sum(), z)
        d = z.detach() + 0.4 * eps * g / g.norm(dim=1, keepdim=True) - b.x
        z = b.x + d * (eps / d.norm(dim=1, keepdim=True)).clamp(max=1.0)
    calls: list[int] = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    inner = NoisyAscend(PGD(steps=4, rate=0.4, start=Here()), sigma, n)
    with untouched(model):
        found = inner(model, b, threat, {})
    handle.remove()
    assert list(found) == list(copies(n))
    for v, e in zip(found.values(), noise, strict=True):
        assert torch.allclose(v, z + e, atol=1e-4)
    assert len(calls) == 4 * n == inner.cost / 2
    assert inner.stronger().attack.steps == 5


# ---- formulas


def test_the_mean_loss() -> None:
    v, logits, y = views(3)
    each = torch.stack([F.cross_entropy(z, y, reduction="none") for z in logits]).mean(0)
    for recipe in (recipes.gaussian(n=3), recipes.smoothadv(n=3)):
        assert torch.allclose(recipe.outer(v), each, atol=1e-6)
    mean = torch.stack([z.softmax(1) for z in logits]).mean(0)
    assert torch.allclose(MeanCE(copies(3))(v), -mean[range(N), y].log(), atol=1e-6)


def test_consistency_is_its_formula() -> None:
    """As in the authors' code: lbd x mean KL(mean || p) + eta x entropy(mean)."""
    v, logits, y = views(2)
    p = [z.softmax(1) for z in logits]
    mean = sum(p) / 2
    kl = sum((mean * (mean.log() - q.log())).sum(1) for q in p) / 2
    entropy = -(mean * mean.log()).sum(1)
    assert torch.allclose(FromMean(copies(2))(v), kl, atol=1e-6)
    assert torch.allclose(MeanEntropy(copies(2))(v), entropy, atol=1e-6)
    ce = sum(F.cross_entropy(z, y, reduction="none") for z in logits) / 2
    assert torch.allclose(recipes.consistency(lam=7.0, eta=0.3).outer(v), ce + 7 * kl + 0.3 * entropy, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 4.0, 60.0])
def test_macer_is_its_formula(scale) -> None:
    """As in the authors' code, where rows out of reach are left out of the second sum."""
    v, logits, y = views(4, scale)
    sigma, gamma, beta, lam = 0.25, 1.0, 4.0, 5.0
    stacked = torch.stack(logits, 1)
    first = -(stacked.softmax(2).mean(1))[range(N), y].log()
    score, place = (beta * stacked).softmax(2).mean(1).topk(2)
    gap = Normal(0, 1).icdf(score[:, 1].double()) - Normal(0, 1).icdf(score[:, 0].double())
    counts = (place[:, 0] == y) & gap.isfinite() & (gap.abs() <= gamma)
    expected = first + lam * torch.where(counts, (gap.float() + gamma) * sigma / 2, 0.0)
    recipe = recipes.macer(sigma=sigma, n=4, lam=lam, gamma=gamma, sharper=beta)
    assert torch.allclose(recipe.outer(v), expected, rtol=1e-4, atol=1e-4)
    assert counts.any() or scale > 4
    assert ((place[:, 0] == y) & gap.isfinite() & (gap.abs() > gamma)).any() or scale != 4


def test_a_row_too_sure_for_a_radius_has_no_gradient_and_spoils_none() -> None:
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    x = torch.tensor([[80.0, -80.0], [0.1, 0.0], [0.0, 0.1]])
    v = Views({"a": x}, torch.tensor([0, 0, 0]), model)
    loss = Radius(("a",), 0.25)(v)
    loss.sum().backward()
    assert model.weight.grad.isfinite().all()
    assert loss[0] == 0
    assert loss[1] > 0
    assert loss[2] == 0  # wrong already


def test_costs_and_words() -> None:
    assert recipes.gaussian().cost == 3
    assert recipes.smoothadv(n=3, attack=PGD(steps=2)).cost == 3 * 4 + 9
    assert recipes.consistency().cost == cost_of(recipes.consistency().outer) == 6
    assert recipes.macer(n=5).cost == 15
    assert recipes.smoothadv().hardens
    assert "10 KL(mean p || p) + 0.5 H(mean p)" in recipes.consistency().formula


@pytest.mark.parametrize("make", [recipes.gaussian, recipes.smoothadv, recipes.consistency, recipes.macer])
def test_noise_that_is_none(make) -> None:
    for sigma in (0.0, -1.0, math.nan):
        with pytest.raises(InputError, match="sigma is the deviation of the noise"):
            make(sigma=sigma)
    with pytest.raises(InputError, match="n is how many noisy copies"):
        make(n=0)
    with pytest.raises(InputError, match="2 or more, got 1"):
        recipes.consistency(n=1)
    with pytest.raises(InputError, match="lam must not be negative"):
        recipes.consistency(lam=-1.0)


# ---- what they are for

DIGITS = load_data("digits", split="train").take(torch.arange(900))
HELD = load_data("digits", split="test")
SIGMA = 0.5


@pytest.fixture(scope="module")
def trained() -> dict[str, nn.Module]:
    made = {}
    for recipe in (
        recipes.standard(),
        recipes.gaussian(sigma=SIGMA),
        recipes.smoothadv(sigma=SIGMA, n=2, attack=PGD(steps=2, rate=0.7)),
        recipes.consistency(sigma=SIGMA, lam=5.0),
        recipes.macer(sigma=SIGMA, n=8, lam=3.0),
    ):
        torch.default_generator.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        plan = Plan(epochs=12, batch_size=50, select=FGSM(), select_rows=100, optimizer=Adam(5e-3))
        fit(Job(model=model, data=DIGITS, validation=HELD, threat=L2(1.0), recipe=recipe, plan=plan))
        made[recipe.name] = model
    return made


def answers(model: nn.Module, x: Tensor, n: int = 32) -> Tensor:
    noise = SIGMA * Rng.of(9, len(x)).normal(n, *x.shape[1:])
    with torch.no_grad():
        return torch.stack([model(x + noise[:, i]).softmax(1) for i in range(n)])


def right(p: Tensor) -> float:
    return float((p.argmax(-1) == HELD.y).double().mean())


def attacked(model: nn.Module) -> float:
    """Accuracy of the mean answer where an attack through the noise leads it."""
    b = Batch(HELD.x, HELD.y, torch.arange(len(HELD.y)), Rng.of(1, len(HELD.y)))
    with untouched(model):
        seen = NoisyAscend(PGD(steps=10, rate=0.3), SIGMA, 8)(model, b, L2(1.0), {})
        return right(torch.stack([model(z).softmax(1) for z in seen.values()]).mean(0))


def radius(model: nn.Module) -> float:
    """Of hard votes, right ones only: sigma x quantile of the label's share, no share above 99 of 100."""
    votes = (answers(model, HELD.x, 100).argmax(2) == HELD.y).double().mean(0).clamp(max=0.99)
    return float((SIGMA * torch.special.ndtri(votes)).clamp_min(0).mean())


@pytest.mark.parametrize("name", ["gaussian", "smoothadv", "consistency", "macer"])
def test_the_radius_of_the_smoothed_model_grows(trained, name) -> None:
    assert radius(trained[name]) > radius(trained["standard"]) + 0.08


def test_smoothadv_makes_the_smoothed_model_robust(trained) -> None:
    robust = {k: attacked(trained[k]) for k in ("standard", "gaussian", "smoothadv")}
    assert robust["smoothadv"] > robust["gaussian"] + 0.02
    assert robust["gaussian"] > robust["standard"]


def test_consistency_makes_the_copies_agree(trained) -> None:
    def spread(model: nn.Module) -> float:
        p = answers(model, HELD.x)
        return float((p * (p.log() - p.mean(0).log())).sum(2).mean())

    assert spread(trained["consistency"]) < 0.8 * spread(trained["gaussian"])


def test_macer_widens_the_radius(trained) -> None:
    """Of what it minimises, by which the radius of rows that are right falls short; and by votes, a little."""

    def missing(model: nn.Module) -> float:
        inputs = Noisy(SIGMA, 8)(model, Batch(HELD.x, HELD.y, HELD.y, Rng.of(2, len(HELD.y))), L2(1.0), {})
        short = Radius(copies(8), SIGMA)(Views(inputs, HELD.y, model))
        return float(short[short > 0].detach().mean())

    assert missing(trained["macer"]) < missing(trained["gaussian"]) - 0.02
    assert radius(trained["macer"]) > radius(trained["gaussian"])


@pytest.mark.parametrize("recipe", [recipes.consistency(), recipes.smoothadv(n=2)], ids=lambda r: r.name)
def test_a_killed_run_goes_on_bit_for_bit(recipe, tmp_path) -> None:
    def run(stop: int | None, **more) -> bytes:
        torch.default_generator.manual_seed(1)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))

        def watch(step: int, steps: int, text: str) -> None:
            if step == stop:
                raise KeyboardInterrupt

        plan = Plan(epochs=2, batch_size=16, select=FGSM(), save_every=0.0, select_rows=32)
        rows, others = DIGITS.take(torch.arange(64)), DIGITS.take(torch.arange(64, 128))
        fit(Job(model=model, data=rows, validation=others, threat=L2(0.5), recipe=recipe, plan=plan, watch=watch,
                **more))  # fmt: skip
        return b"".join(v.numpy().tobytes() for v in model.state_dict().values())

    whole = run(None)
    for step in (2, 6):
        with pytest.raises(KeyboardInterrupt):
            run(step, folder=tmp_path, resume=True)
    assert run(None, folder=tmp_path, resume=True) == whole
