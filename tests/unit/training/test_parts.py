"""Losses over views, inner parts and recipes: each against its formula."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adamant.attacks import FGSM, PGD, RandomSearch
from adamant.attacks.starts import Here
from adamant.calling import untouched
from adamant.errors import InputError
from adamant.random import Rng
from adamant.threats import L2, Linf
from adamant.training import recipes
from adamant.training.inner import Ascend, Keep, Pool
from adamant.training.outer import CE, Balanced, Sum, Times
from adamant.training.parts import Batch
from adamant.training.plan import Plan
from adamant.training.views import Views, views_of

N, D, K = 6, 5, 3


def net(seed: int = 0) -> nn.Sequential:
    torch.default_generator.manual_seed(seed)
    return nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, K))


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(N, D, generator=g), torch.randint(0, K, (N,), generator=g)


def views(seed: int = 0) -> tuple[Views, Tensor, Tensor]:
    x, y = batch(seed)
    model = net(seed).eval()
    return Views({"clean": x, "adv": (x + 0.1).clamp(0, 1)}, y, model), model(x), model((x + 0.1).clamp(0, 1))


# ---- losses over views


def test_each_formula_on_numbers() -> None:
    v, clean, adv = views()
    ce = lambda z: F.cross_entropy(z, v.label, reduction="none")  # noqa: E731
    assert torch.equal(CE("clean")(v), ce(clean))
    assert torch.allclose(CE("adv")(v), -adv.log_softmax(1)[range(N), v.label])
    smooth = 0.9 * ce(clean) - 0.1 * clean.log_softmax(1).mean(1)
    assert torch.allclose(CE("clean", smoothing=0.1)(v), smooth)
    assert torch.allclose(Times(2.5, CE("adv"))(v), 2.5 * ce(adv))
    assert torch.allclose(Sum(CE("clean"), Times(0.3, CE("adv")))(v), ce(clean) + 0.3 * ce(adv))
    assert torch.allclose(recipes.mixed(lam=0.7).outer(v), ce(clean) + 0.7 * ce(adv))
    assert torch.allclose(recipes.augmented().outer(v), (ce(clean) + ce(adv)) / 2)
    assert torch.equal(recipes.madry().outer(v), ce(adv))
    assert torch.equal(recipes.standard().outer(v), ce(clean))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_balanced_keeps_the_second_term_at_its_share(share) -> None:
    for seed in range(3):
        v, clean, adv = views(seed)
        first, second = F.cross_entropy(clean, v.label), F.cross_entropy(adv, v.label)
        weight = share / (1 - share) * first.item() / second.item()
        whole = recipes.mixed(adaptive=share).outer(v).mean()
        assert whole.item() == pytest.approx(first.item() + weight * second.item(), rel=1e-5)
        assert weight * second.item() / whole.item() == pytest.approx(share, rel=1e-5)


def test_the_weight_of_balanced_is_a_number_without_gradient() -> None:
    v, clean, adv = views()
    scale = torch.ones((), requires_grad=True)

    class Scaled:
        views = ("adv",)

        def __call__(self, _: Views) -> Tensor:
            return scale * F.cross_entropy(adv.detach(), v.label, reduction="none")

    (g,) = torch.autograd.grad(Balanced(CE("clean"), Scaled())(v).mean(), scale)
    assert g.item() == pytest.approx(F.cross_entropy(clean, v.label).item(), rel=1e-5)


def test_logits_of_a_view_are_computed_once_and_only_when_asked_for() -> None:
    seen = []
    x, y = batch()

    def model(z: Tensor) -> Tensor:
        seen.append(z)
        return z[:, :K].half()

    v = Views({"clean": x, "adv": x + 1}, y, model)
    assert Sum(CE("clean"), CE("clean"))(v).dtype == torch.float32
    assert len(seen) == 1
    assert views_of(Sum(CE("clean"), CE("adv"), CE("clean"))) == ("clean", "adv")


def test_formulas_in_words() -> None:
    assert recipes.mixed(lam=0.5).formula == "minimise mean[ CE(clean) + 0.5 CE(adv) ]"
    assert recipes.madry().formula == "minimise mean[ CE(adv) ]"
    assert "so that the second is 30% of the sum" in recipes.mixed(adaptive=0.3).formula


@pytest.mark.parametrize(
    ("recipe", "cost"),
    [
        (recipes.standard(), 3),
        (recipes.madry(attack=PGD(steps=7)), 14 + 3),
        (recipes.mixed(), 2 + 6),
        (recipes.augmented(), 2 + 6),
    ],
    ids=lambda v: getattr(v, "name", v),
)
def test_what_a_step_costs(recipe, cost) -> None:
    assert recipe.cost == cost
    assert f"Costs {cost} forwards per row" in recipe.explain()
    assert recipe.source in recipe.explain()


def test_recipes_refuse_what_has_no_meaning() -> None:
    for share in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(InputError, match="adversarial share of the loss, between 0 and 1"):
            recipes.mixed(adaptive=share)
    with pytest.raises(InputError, match="lam must not be negative"):
        recipes.mixed(lam=-0.1)
    with pytest.raises(InputError, match="Training climbs gradients, and RandomSearch uses none"):
        _ = recipes.madry(attack=RandomSearch()).cost


# ---- inner parts


def a_batch(seed: int = 0) -> Batch:
    x, y = batch(seed)
    return Batch(x, y, torch.arange(N), Rng.of(5, N))


def test_keep_makes_nothing() -> None:
    memory: dict[str, Tensor] = {}
    assert Keep()(net(), a_batch(), Linf(0.1), memory) == {}
    assert memory == {}


@pytest.mark.parametrize("start", ["here", "anywhere"])
def test_ascend_is_projected_gradient_ascent(start) -> None:
    """Ten lines of PGD, as in Madry et al. (2018)."""
    model, b, eps, rate, steps = net().eval(), a_batch(), 0.1, 0.25, 6
    attack = PGD(steps=steps, rate=rate, start=Here()) if start == "here" else PGD(steps=steps, rate=rate)
    z = b.x if start == "here" else Linf(eps).sample(b.x, b.rng.fold("start"))
    for _ in range(steps):
        z = z.detach().requires_grad_(True)
        (g,) = torch.autograd.grad(F.cross_entropy(model(z), b.y, reduction="sum"), z)
        z = (z + rate * eps * g.sign()).clamp(b.x - eps, b.x + eps).clamp(0, 1)
    with untouched(model):
        found = Ascend(attack)(model, b, Linf(eps), {})
    assert list(found) == ["adv"]
    assert torch.allclose(found["adv"], z.detach(), atol=1e-6)
    assert not found["adv"].requires_grad
    assert Linf(eps).contains(found["adv"], b.x).all()


def test_ascend_follows_the_geometry_of_its_threat_model() -> None:
    model, b = net().eval(), a_batch()
    with untouched(model):
        found = Ascend(FGSM())(model, b, L2(0.2, box=(-9.0, 9.0)), {})["adv"]
    z = b.x.clone().requires_grad_(True)
    (g,) = torch.autograd.grad(F.cross_entropy(model(z), b.y, reduction="sum"), z)
    assert torch.allclose(found, b.x + 0.2 * g / g.norm(dim=1, keepdim=True), atol=1e-5)


def test_the_pool_grows_by_a_generation_until_it_is_full() -> None:
    x, y = batch()
    memory: dict[str, Tensor] = {}
    made = []
    for generation in range(4):
        model = net(generation).eval()
        with untouched(model):
            Pool(FGSM(), keep=3).refresh(model, x, y, Linf(0.1), Rng.of(generation, N), memory)
            fresh = Ascend(FGSM())(model, Batch(x, y, torch.arange(N), Rng.of(generation, N)), Linf(0.1), {})["adv"]
        made.insert(0, fresh)
        assert len(memory["pool"]) == min(generation + 1, 3)
        assert torch.equal(memory["pool"], torch.stack(made[:3]))  # the latest first, the oldest forgotten


def test_the_pool_gives_each_row_one_of_its_own() -> None:
    pool = torch.arange(3 * N).view(3, N, 1).float()
    places = torch.tensor([4, 0, 2])
    seen = set()
    for step in range(60):
        b = Batch(torch.zeros(3, 1), torch.zeros(3).long(), places, Rng.of(0, places).fold(step))
        drawn = Pool(FGSM())(net(), b, Linf(0.1), {"pool": pool})["adv"][:, 0].long()
        assert (drawn % N).tolist() == places.tolist()
        seen |= {(i, g) for i, g in enumerate((drawn // N).tolist())}
    assert seen == {(i, g) for i in range(3) for g in range(3)}


def test_a_pool_larger_than_a_batch_of_its_making() -> None:
    x = torch.rand(300, D, generator=torch.Generator().manual_seed(0))
    y, model, memory = torch.zeros(300).long(), net().eval(), {}
    with untouched(model):
        Pool(PGD(steps=2)).refresh(model, x, y, Linf(0.1), Rng.of(0, 300), memory)
        whole = Ascend(PGD(steps=2))(model, Batch(x, y, torch.arange(300), Rng.of(0, 300)), Linf(0.1), {})["adv"]
    assert torch.allclose(memory["pool"][0], whole, atol=1e-6)


# ---- plan


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (Plan(batch_size=7), "6 rows, fewer than one batch of 7"),
        (Plan(epochs=0, batch_size=2), "at least one epoch"),
        (Plan(batch_size=0), "one row per batch"),
        (Plan(batch_size=2, dropout=1.0), "Dropout is a share"),
        (Plan(batch_size=2, dropout=-0.1), "Dropout is a share"),
    ],
)
def test_a_plan_that_cannot_be_carried_out(plan, said) -> None:
    with pytest.raises(InputError, match=said):
        plan.check(6)
