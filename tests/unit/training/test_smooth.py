"""Penalties on gradients and virtual adversaries: each against plain derivatives, and against what it is to move."""

from dataclasses import dataclass, replace

import pytest
import torch
from tests.unit.training.toys import (
    DIGITS,
    EPS,
    PLAN,
    TEST,
    D,
    K,
    N,
    a_batch,
    digits_net,
    ends,
    judged,
    rows,
    smooth,
    train,
    views,
)
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.func import jacrev, vmap
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from adamant.attacks import FGSM
from adamant.attacks.starts import Here
from adamant.calling import untouched
from adamant.errors import InputError
from adamant.random import Rng
from adamant.threats import L2, Linf
from adamant.training import recipes
from adamant.training.inner import Ascend
from adamant.training.outer import CE
from adamant.training.pairs import Steady
from adamant.training.parts import Batch
from adamant.training.slopes import Bend, Curved, Plane, Sensitivity, Steepness
from adamant.training.views import Views, sloped, slopes_of
from adamant.training.virtual import Virtual


def plain_slopes(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of each row's cross-entropy, row by row."""
    found = []
    for row, label in zip(x.detach(), y, strict=True):
        z = row.clone().requires_grad_()
        found.append(torch.autograd.grad(F.cross_entropy(model(z[None]), label[None]), z)[0])
    return torch.stack(found)


# ---- formulas


def test_steepness_is_the_squared_length_of_the_gradient() -> None:
    v, model = views(smooth()), smooth()
    g = plain_slopes(model, v.inputs["clean"], v.label)
    expected = F.cross_entropy(model(v.inputs["clean"]), v.label, reduction="none") + 0.7 * (g**2).sum(1)
    assert torch.allclose(recipes.gradient_penalty(lam=0.7).outer(v), expected, atol=1e-5)


def test_the_gradient_of_steepness_is_that_of_differences() -> None:
    """The penalty is differentiated by the weights through the gradient by the input."""
    model = smooth().double()

    def penalty() -> Tensor:
        x, y = rows()
        return Steepness("clean")(Views(sloped({"clean": x.double()}, ["clean"]), y, model)).sum()

    penalty().backward()
    weight, h = model[0].weight, 1e-5
    for i, j in ((0, 0), (3, 2), (7, 4)):
        with torch.no_grad():
            weight[i, j] += h
            up = penalty_value(penalty)
            weight[i, j] -= 2 * h
            down = penalty_value(penalty)
            weight[i, j] += h
        assert weight.grad[i, j].item() == pytest.approx((up - down) / (2 * h), rel=1e-4)


def test_rows_that_were_mixed_have_the_slope_of_their_mixed_loss() -> None:
    (x, y), model = rows(), smooth()
    soft = Rng.of(3, N).normal(K).softmax(1)
    v = Views(sloped({"clean": x}, ["clean"]), y, model, soft=soft)
    z = x.clone().requires_grad_()
    loss = -(soft * model(z).log_softmax(1)).sum(1)
    assert torch.allclose(CE("clean")(v), loss)
    (g,) = torch.autograd.grad(loss.sum(), z)
    assert torch.allclose(Steepness("clean")(v), g.square().sum(1), atol=1e-6)


def penalty_value(penalty) -> float:
    with torch.enable_grad():
        return penalty().item()


def test_sensitivity_is_the_norm_of_the_jacobian_on_average() -> None:
    x, y = rows()
    model = smooth()
    whole = vmap(jacrev(lambda z: model(z[None])[0]))(x).square().sum((1, 2)) / 2
    v = Views(sloped({"clean": x}, ["clean"]), y, model, rng=Rng.of(7, N))
    assert torch.allclose(Sensitivity("clean", 1000)(v), whole, rtol=0.08)
    one = Sensitivity("clean")(v)
    jac = vmap(jacrev(lambda z: model(z[None])[0]))(x)
    u = v.rng.fold("projection").fold(0).normal(K)
    u = u / u.norm(dim=1, keepdim=True)
    assert torch.allclose(one, K / 2 * torch.einsum("nk,nkd->nd", u, jac).square().sum(1), rtol=1e-4)


def test_curved_is_the_change_of_the_gradient() -> None:
    v, model = views(smooth()), smooth()
    here, there = (plain_slopes(model, v.inputs[k], v.label) for k in ("clean", "adv"))
    assert torch.allclose(Curved("clean", "adv")(v), (there - here).square().sum(1), atol=1e-5)


def test_cure_looks_ahead_along_the_sign_of_the_gradient() -> None:
    model, b = smooth(), a_batch()
    with untouched(model):
        ahead = recipes.cure(reach=0.5).inner(model, b, Linf(0.1), {})["ahead"]
    assert torch.allclose(ahead, b.x + 0.05 * plain_slopes(model, b.x, b.y).sign(), atol=1e-6)
    assert slopes_of(recipes.cure().outer) == ("clean", "ahead")


def test_plane_is_the_distance_from_the_first_order() -> None:
    v, model = views(smooth()), smooth()
    x, z = v.inputs["clean"].detach(), v.inputs["adv"].detach()
    loss = [F.cross_entropy(model(k), v.label, reduction="none") for k in (x, z)]
    rise = (plain_slopes(model, x, v.label) * (z - x)).sum(1)
    expected = loss[0] + 4 * (loss[1] - loss[0] - rise).abs() + 3 * rise.abs()
    assert torch.allclose(recipes.llr().outer(v), expected, atol=1e-5)
    assert torch.allclose(Plane(bend=0.0, rise=1.0)(v), rise.abs(), atol=1e-5)


def test_bend_climbs_the_distance_from_the_plane() -> None:
    """Above the plane and below it."""
    eps, below = 0.1, 0
    for seed in range(4):
        model, b = smooth(seed, 3.0), a_batch(seed)
        with untouched(model):
            found = Bend(4, 0.25)(model, b, Linf(eps), {})["adv"]
        g0, l0 = plain_slopes(model, b.x, b.y), F.cross_entropy(model(b.x), b.y, reduction="none").detach()
        z = Linf(eps).sample(b.x, b.rng.fold("start"))
        for _ in range(4):
            z = z.detach().requires_grad_()
            gap = F.cross_entropy(model(z), b.y, reduction="none") - l0 - ((z - b.x) * g0).sum(1)
            (g,) = torch.autograd.grad(gap.abs().sum(), z)
            z, below = (z + 0.25 * eps * g.sign()).clamp(b.x - eps, b.x + eps), below + int((gap < -1e-3).sum())
        assert torch.allclose(found, z, atol=1e-5)
    assert below


@pytest.mark.parametrize("eps", [0.05, 0.3])
def test_virtual_is_the_first_eigenvector(eps) -> None:
    """With many steps: of the Hessian of the divergence by the input, found in full."""
    model, b = smooth(scale=0.7).double(), a_batch()
    b = replace(b, x=b.x.double())
    with untouched(model):
        found = Virtual(60, 1e-3)(model, b, L2(eps, box=(-9.0, 9.0)), {})["adv"]
    for row, z in zip(b.x, found, strict=True):
        p = model(row[None]).detach().softmax(1)
        h = hessian(lambda r: F.kl_div(model(r[None]).log_softmax(1), p, reduction="sum"), row)  # noqa: B023
        top = torch.linalg.eigh(h)[1][:, -1]
        assert (z - row).norm().item() == pytest.approx(eps, rel=1e-3)
        assert abs(float((z - row) @ top)) == pytest.approx(eps, rel=1e-2)


def test_virtual_takes_one_step_of_the_power_iteration() -> None:
    model, b = smooth(), a_batch()
    with untouched(model):
        found = Virtual(1, 0.1)(model, b, L2(0.2, box=(-9.0, 9.0)), {})["adv"]
    d = b.rng.fold("start").normal(D)
    z = (b.x + 0.02 * d / d.norm(dim=1, keepdim=True)).requires_grad_()
    p = model(b.x).softmax(1).detach()
    (g,) = torch.autograd.grad(F.kl_div(model(z).log_softmax(1), p, reduction="sum"), z)
    assert torch.allclose(found, b.x + 0.2 * g / g.norm(dim=1, keepdim=True), atol=1e-4)


def test_vat_holds_the_clean_answer_fixed() -> None:
    model, other = smooth(), smooth()
    v = views(model)
    recipes.vat(alpha=0.5).outer(v).mean().backward()
    x, z = v.inputs["clean"].detach(), v.inputs["adv"].detach()
    p = other(x).softmax(1).detach()
    loss = F.cross_entropy(other(x), v.label) + 0.5 * F.kl_div(other(z).log_softmax(1), p, reduction="batchmean")
    loss.backward()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6)


# ---- rows without a label


def test_rows_without_a_label_have_no_clean_loss_and_the_other_term() -> None:
    x, y = rows()
    bare = torch.full_like(y, -1)
    v = Views({"clean": x, "adv": x + 0.1}, torch.cat([y[:3], bare[3:]]), smooth())
    w = Views({"clean": x, "adv": x + 0.1}, y, smooth())
    assert torch.equal(CE("clean")(v)[3:], torch.zeros(3))
    assert torch.equal(CE("clean", 0.1)(v)[3:], torch.zeros(3))
    assert torch.equal(CE("clean")(v)[:3], CE("clean")(w)[:3])
    assert torch.equal(Steady("clean", "adv")(v), Steady("clean", "adv")(w))


@dataclass(frozen=True)
class Labelled:
    x: Tensor
    y: Tensor


FEW = DIGITS.take(torch.arange(20))
MORE = DIGITS.take(torch.arange(100, 500))
BARE = Labelled(MORE.x, torch.full_like(MORE.y, -1))
HALF = replace(PLAN, epochs=60, batch_size=40, extra=0.5, augment=())


def test_unlabelled_rows_teach() -> None:
    """Answers on test rows change less than without them, and more rows stand."""

    def unsteady(model: nn.Module) -> float:
        x = TEST.x[:300]
        with untouched(model):
            z = Virtual()(model, Batch(x, TEST.y[:300], torch.arange(300), Rng.of(0, 300)), L2(0.5), {})["adv"]
            p, q = model(x).log_softmax(1), model(z).log_softmax(1)
        return float((p.exp() * (p - q)).sum(1).mean())

    recipe, few = recipes.vat(alpha=3.0), replace(HALF, batch_size=20, extra=0.0)
    alone = train(recipe, data=FEW, threat=L2(0.5), plan=few)
    helped = train(recipe, data=FEW, threat=L2(0.5), plan=HALF, extra=BARE)
    assert unsteady(helped) < 0.8 * unsteady(alone)
    assert judged(helped, L2(0.5))[1] > judged(alone, L2(0.5))[1] + 0.03


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        (recipes.madry(), "Ascend"),
        (recipes.mixed(), "Ascend"),
        (recipes.augmented(), "Pool"),
        (recipes.mart(), "Ascend"),
        (recipes.llr(), "Bend"),
        (recipes.gradient_penalty(), "Steepness"),
        (recipes.eat(), "ByError"),
        (recipes.msd(), "Steepest"),
    ],
    ids=lambda v: getattr(v, "name", v),
)
def test_what_needs_labels_says_so(recipe, name) -> None:
    with pytest.raises(InputError, match=rf"no label \(-1\), and {name} in {recipe.name} needs one"):
        train(recipe, data=FEW, plan=HALF, extra=BARE)


def test_labels_below_are_refused() -> None:
    bad = Labelled(FEW.x, torch.full_like(FEW.y, -1))
    with pytest.raises(InputError, match="belong to the extra rows"):
        train(recipes.vat(), data=bad, plan=HALF, extra=BARE)
    with pytest.raises(InputError, match="Label -2 in the extra rows"):
        train(recipes.vat(), data=FEW, plan=HALF, extra=Labelled(MORE.x, BARE.y - 1))


# ---- what the papers say


@pytest.fixture(scope="module")
def trained() -> dict[str, nn.Module]:
    made = {
        "standard": recipes.standard(),
        "gradient_penalty": recipes.gradient_penalty(),
        "jacobian": recipes.jacobian(lam=0.1),
        "llr": recipes.llr(),
        "cure": recipes.cure(),
        "vat": recipes.vat(alpha=4.0),
    }
    return {name: train(recipe) for name, recipe in made.items()}


@pytest.mark.parametrize("name", ["gradient_penalty", "jacobian", "llr", "cure", "vat"])
def test_smooth_models_stand_more(trained, name) -> None:
    clean, robust, _ = judged(trained[name], EPS)
    assert robust > judged(trained["standard"], EPS)[1] + 0.1
    assert clean > 0.75


@pytest.mark.parametrize(
    ("name", "term"),
    [
        ("gradient_penalty", Steepness("clean")),
        ("jacobian", Sensitivity("clean", 4)),
        ("llr", Plane("clean", "adv")),
        ("cure", Curved("clean", "adv")),
        ("vat", Steady("clean", "adv")),
    ],
)
def test_each_shrinks_what_it_penalises(trained, name, term) -> None:
    sizes = {}
    for k in ("standard", name):
        x, y, model = TEST.x[:200], TEST.y[:200], trained[k]
        with untouched(model):
            z = one_step(model, x, y)
        v = Views(sloped({"clean": x, "adv": z}, ["clean", "adv"]), y, model, rng=Rng.of(3, 200))
        sizes[k] = float(term(v).detach().mean())
    assert sizes[name] < 0.6 * sizes["standard"]


def one_step(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return Ascend(FGSM())(model, Batch(x, y, torch.arange(len(x)), Rng.of(0, len(x))), EPS, {})["adv"]


# ---- killed, refused, and what it costs


@pytest.mark.parametrize("recipe", [recipes.vat(), recipes.jacobian(), recipes.llr()], ids=lambda r: r.name)
def test_killed_in_the_middle_of_an_epoch(recipe, tmp_path) -> None:
    settings = {"extra": BARE, "plan": replace(PLAN, epochs=3, batch_size=24, extra=0.5, save_every=0.0)}
    settings = settings if recipe.name == "vat" else {}
    whole = ends(recipe, None, **settings)
    with pytest.raises(KeyboardInterrupt):
        ends(recipe, tmp_path, stop=4, **settings)
    assert ends(recipe, tmp_path, resume=True, seed=9, **settings) == whole


@pytest.mark.parametrize("recipe", [recipes.gradient_penalty(), recipes.cure(), recipes.llr(), recipes.jacobian()])
def test_what_differentiates_twice_is_not_compiled(recipe) -> None:
    with pytest.raises(InputError, match=f"{recipe.name} differentiates twice, which compiled models cannot"):
        train(recipe, plan=replace(PLAN, compile=True))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: recipes.gradient_penalty(lam=-1), "lam must not be negative"),
        (lambda: recipes.jacobian(projections=0), "at least 1, got 0"),
        (lambda: recipes.llr(bend=-1), "bend must not be negative"),
        (lambda: recipes.cure(reach=2.0), "a step within the budget"),
        (lambda: recipes.vat(steps=0), "at least one step"),
        (lambda: recipes.vat(alpha=-1), "alpha must not be negative"),
    ],
)
def test_bad_settings(make, said) -> None:
    with pytest.raises(InputError, match=said):
        make()


class Products(TorchDispatchMode):
    """Counts products of matrices; here all are of one size."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in ("mm", "addmm")
        return func(*args, **(kwargs or {}))


def test_costs() -> None:
    assert recipes.gradient_penalty().cost == 3 + 3
    assert recipes.jacobian(projections=4).cost == 3 + 12
    assert recipes.llr(steps=2).cost == 2 * 3 + 6 + 3
    assert recipes.cure().cost == 2 + 6 + 6
    assert recipes.vat(steps=2).cost == 1 + 4 + 6


@pytest.mark.parametrize(
    "recipe",
    [
        recipes.gradient_penalty(),
        recipes.jacobian(projections=3),
        recipes.llr(steps=3),
        recipes.cure(),
        recipes.vat(steps=2),
        recipes.trades(),
        recipes.mart(),
    ],
    ids=lambda r: r.name,
)
def test_costs_are_those_of_a_count_of_operations(recipe) -> None:
    """Products of matrices in a deep even network, as the forward's multiple."""
    model = nn.Sequential(*(layer for _ in range(12) for layer in (nn.Linear(16, 16), nn.Softplus()))).eval()
    x, y = Rng.of(0, 16).uniform(16), Rng.of(0, 16).integers(16)
    b = Batch(x, y, torch.arange(16), Rng.of(0, 16))
    with Products() as one:
        model(x)
    with Products() as whole:
        with untouched(model):
            made = {"clean": x, **recipe.inner(model, b, Linf(0.1), {})}
        v = Views(sloped(made, slopes_of(recipe.outer)), y, model, rng=b.rng)
        recipe.outer(v).mean().backward()
    assert one.count == 12
    assert whole.count / one.count == pytest.approx(recipe.cost, rel=0.12)


def test_starts_are_settings() -> None:
    model, b = smooth(), a_batch()
    with untouched(model):
        found = Bend(1, 1.0, start=Here())(model, b, Linf(0.1), {})["adv"]
    assert Linf(0.1).contains(found, b.x).all()


def test_norms_of_batches_are_no_hindrance() -> None:
    model = digits_net(norm=True)
    train(recipes.gradient_penalty(), net=model, plan=replace(PLAN, epochs=1))
    assert int(model[2].num_batches_tracked) == 10
