"""TRADES, MART, logit pairing and a teacher: each against its formula, and against what its paper says it moves."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.unit.training.toys import EPS, TEST, a_batch, digits_net, ends, judged, smooth, train, views
from torch import nn
from torch.nn import functional as F

from adamant import losses
from adamant.attacks import FGSM, PGD, starts
from adamant.calling import untouched
from adamant.errors import InputError, RunError
from adamant.models.architecture import Architecture
from adamant.models.load import load_model
from adamant.models.save import save_model
from adamant.random import Rng
from adamant.threats import Linf
from adamant.training import recipes
from adamant.training.outer import CE
from adamant.training.pairs import Boosted, Doubted
from adamant.training.parts import Batch
from adamant.training.teacher import Depart, Taught, Teacher, teachers_of
from adamant.training.views import Views

QUICK = PGD(steps=3, rate=0.5)


# ---- formulas


def test_trades_is_the_authors_loss() -> None:
    v, ce = views(smooth()), nn.CrossEntropyLoss()
    natural, adversarial = smooth()(v.inputs["clean"]), smooth()(v.inputs["adv"])
    kl = nn.KLDivLoss(reduction="sum")
    robust = kl(F.log_softmax(adversarial, dim=1), F.softmax(natural, dim=1)) / len(v.label)
    expected = ce(natural, v.label) + 6.0 * robust
    assert torch.allclose(recipes.trades().outer(v).mean(), expected, atol=1e-6)


def test_the_gradient_of_trades_runs_through_both_views() -> None:
    model, other = smooth(), smooth()
    recipes.trades().outer(views(model)).mean().backward()
    v = views(other)
    p, q = other(v.inputs["clean"]).softmax(1), other(v.inputs["adv"]).softmax(1)
    (F.cross_entropy(other(v.inputs["clean"]), v.label) + 6 * (p * (p / q).log()).sum(1).mean()).backward()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-5)


def test_trades_climbs_as_its_authors_do() -> None:
    """From x + 0.001 N(0, 1), in signed steps on KL(p(x) || p(x')), with p(x) held."""
    model, b, eps = smooth(), a_batch(), 0.1
    recipe = recipes.trades(attack=PGD(steps=4, rate=0.25, start=starts.Near(0.001), loss=losses.KL()))
    assert recipes.trades().inner == type(recipe.inner)(
        PGD(steps=10, rate=0.25, start=starts.Near(0.001), loss=losses.KL())
    )
    with untouched(model):
        found = recipe.inner(model, b, Linf(eps), {})["adv"]
    z = b.x + 0.001 * b.rng.fold("start").normal(*b.x.shape[1:])
    p = model(b.x).softmax(1).detach()
    for _ in range(4):
        z = z.detach().requires_grad_()
        (g,) = torch.autograd.grad(F.kl_div(model(z).log_softmax(1), p, reduction="sum"), z)
        z = (z + 0.25 * eps * g.sign()).clamp(b.x - eps, b.x + eps).clamp(0, 1)
    assert torch.allclose(found, z, atol=1e-6)


def test_mart_is_the_authors_loss() -> None:
    v = views(smooth())
    natural, adversarial = (smooth()(v.inputs[k]).double().softmax(1) for k in ("clean", "adv"))
    expected = []
    for p, q, y in zip(natural, adversarial, v.label, strict=True):
        other = max(q[k] for k in range(len(q)) if k != y)
        boosted = -q[y].log() - (1 - other).log()
        expected.append(boosted + 5.0 * (p * (p.log() - q.log())).sum() * (1 - p[y]))
    assert torch.allclose(recipes.mart().outer(v).double(), torch.stack(expected), atol=1e-5)


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e30])
def test_mart_is_a_number_however_sure_the_model_is(scale) -> None:
    """1 - p rounds to nothing in float32, where log(1.0001 - p) of the authors has no slope and log(1 - p) no value."""
    logits = (scale * torch.eye(3)).requires_grad_()
    right, wrong = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
    for label in (right, wrong):
        v = Views({"adv": logits, "clean": logits}, label, lambda z: z)
        loss = recipes.mart().outer(v)
        (g,) = torch.autograd.grad(loss.sum(), logits)
        assert torch.isfinite(loss).all()
        assert torch.isfinite(g).all()
        assert (loss > scale if label is wrong else loss < 1e-5).all()


def test_boosted_pushes_the_rival_down_where_the_model_is_wrong_and_sure() -> None:
    logits = torch.tensor([[0.0, 50.0, 0.0]], requires_grad=True)
    (g,) = torch.autograd.grad(Boosted("adv")(Views({"adv": logits}, torch.tensor([0]), lambda z: z)).sum(), logits)
    assert g[0, 1].item() == pytest.approx(2.0, abs=1e-4)  # one from each of its two terms


def test_doubted_weighs_rows_by_what_they_miss() -> None:
    logits = {"clean": torch.tensor([[9.0, 0.0], [-9.0, 0.0]]), "adv": torch.tensor([[0.0, 0.0], [0.0, 0.0]])}
    v = Views(logits, torch.tensor([0, 0]), lambda z: z)
    one, two = Doubted("clean", "adv")(v).tolist()
    assert two == pytest.approx(one / math.exp(-9.0), rel=1e-2)  # equal divergences; e^-9 and all of the label missed


def test_logit_pairing_on_numbers() -> None:
    v = views(smooth())
    f, g = smooth()(v.inputs["clean"]), smooth()(v.inputs["adv"])
    expected = F.cross_entropy(g, v.label, reduction="none") + 0.7 * ((f - g) ** 2).sum(1)
    assert torch.allclose(recipes.alp(lam=0.7).outer(v), expected, atol=1e-6)
    assert "broken" in recipes.alp.__doc__
    assert "broken" in recipes.alp().explain()


# ---- a teacher


@pytest.fixture(scope="module")
def robust(tmp_path_factory) -> Path:
    """A small robust network of the zoo, saved as a person would save it."""
    path = tmp_path_factory.mktemp("teacher") / "robust.safetensors"
    net = load_model("zoo:mlp", shape=(1, 8, 8), classes=10)
    train(recipes.madry(attack=QUICK), net=net)
    save_model(net, path, architecture=Architecture(name="zoo:mlp", shape=(1, 8, 8), classes=10))
    return path


def test_a_teacher_says_what_its_file_says(robust) -> None:
    x, net = TEST.x[:7], load_model(robust)
    said = Teacher(str(robust))(x.requires_grad_(False))
    assert torch.equal(said, net(x))
    assert not said.requires_grad


@pytest.mark.parametrize("t", [1.0, 4.0])
def test_distilled_is_rslad(robust, t) -> None:
    teacher, model, x = Teacher(str(robust)), digits_net(3), TEST.x[:9]
    v = Views({"clean": x, "adv": (x + 0.1).clamp(0, 1)}, TEST.y[:9], model)
    p, kl = (load_model(robust)(x) / t).softmax(1), nn.KLDivLoss(reduction="batchmean")
    near, far = ((model(v.inputs[k]) / t).log_softmax(1) for k in ("clean", "adv"))
    expected = t * t * (5 / 6 * kl(far, p) + 1 / 6 * kl(near, p))
    found = recipes.distilled(teacher=teacher, temperature=t).outer(v).mean()
    assert torch.allclose(found, expected, atol=1e-5)
    found.backward()
    assert all(p.grad is None for p in load_model(robust).parameters())


def test_depart_leads_away_from_the_teacher(robust) -> None:
    model, teacher = digits_net(3), Teacher(str(robust))
    b = Batch(TEST.x[:9], TEST.y[:9], torch.arange(9), Rng.of(0, 9))
    attack, eps = PGD(steps=1, rate=0.5, start=starts.Here(), loss=losses.KL()), 0.1
    with untouched(model):
        found = Depart(attack, teacher)(model, b, Linf(eps), {})["adv"]
    z = b.x.clone().requires_grad_()
    (g,) = torch.autograd.grad(F.kl_div(model(z).log_softmax(1), teacher(b.x).softmax(1), reduction="sum"), z)
    assert torch.allclose(found, (b.x + 0.05 * g.sign()).clamp(0, 1), atol=1e-6)


def test_a_run_goes_on_only_beside_the_same_teacher(robust, tmp_path) -> None:
    path = tmp_path / "teacher.safetensors"
    path.write_bytes(robust.read_bytes())
    recipe = recipes.distilled(teacher=Teacher(str(path)), attack=replace(QUICK, loss=losses.KL()))
    whole = ends(recipe, None)
    with pytest.raises(KeyboardInterrupt):
        ends(recipe, tmp_path / "run", stop=4)
    assert ends(recipe, tmp_path / "run", resume=True, seed=9) == whole
    other = load_model("zoo:mlp", shape=(1, 8, 8), classes=10)
    save_model(other, path, architecture=Architecture(name="zoo:mlp", shape=(1, 8, 8), classes=10))
    with pytest.raises(RunError, match="belongs to another run"):
        ends(recipe, tmp_path / "run", resume=True)


def test_a_teacher_that_is_missing_or_of_another_task(tmp_path) -> None:
    with pytest.raises(InputError, match=r"There is no teacher at .*none.safetensors: give the file of a robust model"):
        ends(recipes.distilled(teacher=Teacher(str(tmp_path / "none.safetensors"))), None)
    path, net = tmp_path / "three.safetensors", load_model("zoo:mlp", shape=(1, 8, 8), classes=3)
    save_model(net, path, architecture=Architecture(name="zoo:mlp", shape=(1, 8, 8), classes=3))
    with pytest.raises(InputError, match="tells 3 classes apart and the model 10"):
        ends(recipes.distilled(teacher=Teacher(str(path)), attack=QUICK), None)


def test_teachers_are_found_in_both_halves() -> None:
    a, b = Teacher("a"), Teacher("b")
    assert teachers_of(Depart(FGSM(), a), Taught("adv", b)) == (a, b)
    assert teachers_of(recipes.madry().inner, CE("adv")) == ()
    assert recipes.distilled(attack=QUICK).inner == recipes.madry(attack=QUICK).inner  # the inner part of ARD


# ---- what the papers say


@pytest.fixture(scope="module")
def trained(robust) -> dict[str, nn.Module]:
    made = {
        "standard": recipes.standard(),
        "madry": recipes.madry(attack=QUICK),
        "trades 1": recipes.trades(beta=1.0, attack=replace(QUICK, loss=losses.KL(), start=starts.Near())),
        "trades 6": recipes.trades(attack=replace(QUICK, loss=losses.KL(), start=starts.Near())),
        "mart": recipes.mart(attack=QUICK),
        "alp": recipes.alp(attack=QUICK),
        "distilled": recipes.distilled(
            teacher=Teacher(str(robust)), attack=replace(QUICK, loss=losses.KL(), start=starts.Near())
        ),
    }
    return {name: train(recipe) for name, recipe in made.items()}


@pytest.mark.parametrize("name", ["trades 1", "trades 6", "mart", "alp", "distilled"])
def test_each_makes_the_model_robust(trained, name) -> None:
    clean, robust, _ = judged(trained[name], EPS)
    assert robust > judged(trained["standard"], EPS)[1] + 0.12
    assert clean > 0.8


def test_beta_holds_the_two_answers_together(trained) -> None:
    assert strays(trained["trades 6"]) < 0.7 * strays(trained["trades 1"])


def strays(model: nn.Module) -> float:
    """How far answers stray around test rows, as a divergence."""
    x = TEST.x[:200]
    with untouched(model):
        z = recipes.trades().inner(model, Batch(x, TEST.y[:200], torch.arange(200), Rng.of(0, 200)), EPS, {})
    p, q = model(x).log_softmax(1), model(z["adv"]).log_softmax(1)
    return float((p.exp() * (p - q)).detach().sum(1).mean())


def test_pairing_brings_logits_closer(trained) -> None:
    def apart(model: nn.Module) -> float:
        x = TEST.x[:200]
        shifted = (x + 0.15 * torch.where(x > 0.5, -1.0, 1.0)).clamp(0, 1)
        return float((model(x) - model(shifted)).detach().square().sum(1).mean())

    assert apart(trained["alp"]) < 0.8 * apart(trained["madry"])


# ---- what is refused, and what it costs


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: recipes.trades(beta=-1.0), "beta must not be negative"),
        (lambda: recipes.mart(lam=math.nan), "lam must not be negative"),
        (lambda: recipes.alp(lam=-0.1), "lam must not be negative"),
        (lambda: recipes.distilled(share=1.5), "from 0 to 1, got 1.5"),
        (lambda: recipes.distilled(temperature=0.0), "temperature must be positive"),
    ],
)
def test_bad_settings(make, said) -> None:
    with pytest.raises(InputError, match=said):
        make()


@pytest.mark.parametrize(
    ("recipe", "cost"),
    [
        (recipes.trades(attack=PGD(steps=7, loss=losses.KL())), 14 + 1 + 6),
        (recipes.mart(attack=PGD(steps=7)), 14 + 6),
        (recipes.alp(attack=PGD(steps=7)), 14 + 6),
        (recipes.distilled(attack=PGD(steps=7, loss=losses.KL())), 14 + 1 + 6 + 2),
    ],
    ids=lambda v: getattr(v, "name", v),
)
def test_costs(recipe, cost) -> None:
    assert recipe.cost == cost
