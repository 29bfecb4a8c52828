"""Several threat models at once: each recipe against its formula, and the union against a count by hand."""

from dataclasses import replace

import pytest
import torch
from tests.unit.training.toys import PLAN, TRAIN, VALID, N, a_batch, digits_net, ends, judged, rows, smooth, train
from torch import nn
from torch.nn import functional as F

from adamant.adversary import Status
from adamant.attacks import FGSM, PGD
from adamant.attacks.starts import Here
from adamant.calling import untouched
from adamant.engine import run
from adamant.errors import InputError
from adamant.goals import Untargeted
from adamant.random import Rng
from adamant.runtime.optimizers import Adam
from adamant.threats import L1, L2, Linf
from adamant.training import recipes
from adamant.training.fit import validate
from adamant.training.inner import Ascend, Keep, Under
from adamant.training.parts import Batch, threats_of
from adamant.training.several import ByError, OneOf, Steepest
from adamant.training.step import Job
from adamant.training.views import Views

QUICK = PGD(steps=3, rate=0.5)
THREE = (Linf(0.1), L2(0.8), L1(3.0))
TWO = (Linf(0.1), L1(3.0))
SHORT = replace(PLAN, epochs=8, select_rows=40, optimizer=Adam(1.5e-2))
LONG = replace(PLAN, epochs=12, select_rows=40)


def several_views(model: nn.Module) -> tuple[Views, dict[str, torch.Tensor]]:
    x, y = rows()
    inputs = {k: x + 0.1 * Rng.of(0, N).fold(k).normal(5) for k in ("linf", "l2", "l1")}
    return Views(inputs, y, model), {k: model(v) for k, v in inputs.items()}


# ---- formulas


def test_mean_and_maximum_of_losses() -> None:
    v, logits = several_views(smooth())
    each = torch.stack([F.cross_entropy(f, v.label, reduction="none") for f in logits.values()])
    assert torch.allclose(recipes.average().outer(v), each.mean(0), atol=1e-6)
    assert torch.equal(recipes.maximum().outer(v), each.max(0).values)
    assert (recipes.maximum().outer(v).mean() > recipes.average().outer(v).mean()).item()


def test_each_view_is_the_worst_point_of_its_own_threat_model() -> None:
    model, b = smooth(), a_batch()
    with untouched(model):
        found = recipes.average(threats=THREE, attack=QUICK).inner(model, b, Linf(9.0), {})
        for name, threat in zip(("linf", "l2", "l1"), THREE, strict=True):
            assert torch.equal(found[name], Ascend(QUICK)(model, b, threat, {})["adv"])
            assert threat.contains(found[name], b.x).all()


def test_ramp_on_numbers() -> None:
    v, logits = several_views(smooth())
    v.label = torch.where(torch.arange(N) < 3, logits["linf"].argmax(1), (logits["linf"].argmax(1) + 1) % 3)
    expected = []
    for f, g, y in zip(logits["linf"], logits["l1"], v.label, strict=True):
        worst = max(-f.log_softmax(0)[y], -g.log_softmax(0)[y])
        p, q = f.softmax(0), g.softmax(0)
        expected.append(worst + 1.5 * (p * (p / q).log()).sum() * (f.argmax() == y))
    assert torch.allclose(recipes.ramp().outer(v), torch.stack(expected), atol=1e-5)


def test_the_steepest_step_is_the_best_of_three() -> None:
    model, b = smooth(), a_batch()
    with untouched(model):
        found = Steepest(THREE, steps=3, rate=0.5, start=Here())(model, b, Linf(9.0), {})["adv"]
    for i in range(N):
        x, y = b.x[i : i + 1], b.y[i : i + 1]
        z = x
        for _ in range(3):
            z = z.detach().requires_grad_()
            (g,) = torch.autograd.grad(F.cross_entropy(model(z), y), z)
            candidates = [t.project(t.move(z.detach(), g, 0.5), x) for t in THREE]
            z = max(candidates, key=lambda c: F.cross_entropy(model(c), y).item())
        assert torch.allclose(found[i], z[0], atol=1e-6)
    assert torch.stack([t.contains(found, b.x) for t in THREE]).any(0).all()


def test_the_schedule_of_the_budget_reaches_all_of_them() -> None:
    model, b = smooth(), a_batch(scale=0.1)
    with untouched(model):
        found = Steepest(THREE, steps=3)(model, b, Linf(9.0), {})["adv"]
        small = tuple(t.at(0.1 * t.eps) for t in THREE)
        assert torch.stack([t.contains(found, b.x) for t in small]).any(0).all()
        for view, t in zip(recipes.maximum(threats=THREE).inner(model, b, Linf(9.0), {}).values(), small, strict=True):
            assert t.contains(view, b.x).all()


# ---- one norm for each batch


def test_one_norm_per_batch_takes_each_as_often() -> None:
    parts = tuple(Under(t, Ascend(FGSM())) for t in THREE)
    model, counts = smooth(), [0, 0, 0]
    with untouched(model):
        made = [part(model, a_batch(), Linf(9.0), {})["adv"] for part in parts]
        for step in range(300):
            b = a_batch(common=Rng.of(0, 1).fold(step))
            found = OneOf(*parts)(model, b, Linf(9.0), {})["adv"]
            (which,) = [i for i, m in enumerate(made) if torch.equal(found, m)]
            counts[which] += 1
    assert all(70 <= c <= 130 for c in counts)


def test_processes_agree_on_the_norm() -> None:
    """Whatever rows they hold: the draw is that of the step."""
    model = smooth()
    x, y = rows()
    with untouched(model):
        for step in range(10):
            common = Rng.of(0, 1).fold(step)
            whole = Batch(x, y, torch.arange(N), Rng.of(5, N), common=common)
            half = Batch(x[3:], y[3:], torch.arange(3, N), Rng.of(5, torch.arange(3, N)), common=common)
            part = OneOf(*(Under(t, Ascend(FGSM())) for t in THREE))
            one, two = (part(model, b, Linf(9.0), {})["adv"] for b in (whole, half))
            assert torch.allclose(one[3:], two, atol=1e-6)


def test_by_error_looks_where_the_errors_are() -> None:
    parts = tuple(Under(t, Ascend(FGSM())) for t in TWO)
    model, memory = smooth(), {"errors": torch.tensor([0.6, 0.2], dtype=torch.float64)}
    counts = [0, 0]
    with untouched(model):
        made = [part(model, a_batch(), Linf(9.0), {})["adv"] for part in parts]
        for step in range(300):
            b = a_batch(common=Rng.of(0, 1).fold(step))
            found = ByError(parts)(model, b, Linf(9.0), dict(memory))["adv"]
            counts[[torch.equal(found, m) for m in made].index(True)] += 1
    assert 190 <= counts[0] <= 260  # three in four


def test_the_running_error_is_that_of_the_points_made() -> None:
    parts = tuple(Under(t, Ascend(FGSM())) for t in TWO)
    model, memory, by_hand = smooth(), {}, [0.5, 0.5]
    with untouched(model):
        for step in range(12):
            b = a_batch(step, common=Rng.of(0, 1).fold(step))
            before = memory.get("errors", torch.tensor([0.5, 0.5], dtype=torch.float64)).tolist()
            assert before == pytest.approx(by_hand)
            z = ByError(parts, keep=0.7)(model, b, Linf(9.0), memory)["adv"]
            (which,) = [i for i, part in enumerate(parts) if torch.equal(part(model, b, Linf(9.0), {})["adv"], z)]
            error = float((model(z).argmax(1) != b.y).double().mean())
            by_hand[which] = 0.7 * by_hand[which] + 0.3 * error
    assert memory["errors"].tolist() == pytest.approx(by_hand)


# ---- the union


def test_validation_reports_the_union() -> None:
    model = digits_net()
    train(recipes.standard(), net=model, plan=replace(PLAN, epochs=3))
    recipe, plan = recipes.maximum(threats=THREE, attack=QUICK), replace(PLAN, select=PGD(steps=3))
    job = Job(model=model, data=TRAIN, validation=VALID, threat=Linf(9.0), recipe=recipe, plan=plan)
    x, y = VALID.x, VALID.y
    standing = torch.ones(len(y), dtype=torch.bool)
    singly = []
    for threat in THREE:
        out = run(PGD(steps=3), model, x, Untargeted(y), threat, rng=Rng.of(0, len(y)).fold("validation"))
        singly.append(float((out.status == Status.ROBUST).double().mean()))
        standing &= out.status == Status.ROBUST
    clean, union = validate(job)
    assert clean == pytest.approx(float((model(x).argmax(1) == y).double().mean()))
    assert union == pytest.approx(float(standing.double().mean()))
    assert union < min(singly)


@pytest.mark.parametrize("make", [recipes.average, recipes.maximum, recipes.one_norm_per_batch, recipes.msd])
def test_the_union_is_that_of_the_threats_named(make) -> None:
    assert threats_of(make(threats=THREE).inner, Linf(9.0)) == THREE


# ---- what the papers say


@pytest.fixture(scope="module")
def trained() -> dict[str, tuple[float, ...]]:
    made = {
        "standard": recipes.standard(),
        "average": recipes.average(threats=THREE, attack=QUICK),
        "maximum": recipes.maximum(threats=THREE, attack=QUICK),
        "msd": recipes.msd(threats=THREE, steps=3, rate=0.5),
        "one_norm_per_batch": recipes.one_norm_per_batch(threats=THREE, attack=QUICK),
        "eat": recipes.eat(threats=TWO, attack=QUICK),
        "ramp": recipes.ramp(threats=TWO, attack=QUICK),
    }
    return {k: judged(train(r, threat=THREE[0], plan=SHORT), *THREE, steps=6, n=150) for k, r in made.items()}


@pytest.mark.parametrize("name", ["average", "maximum", "msd", "one_norm_per_batch", "eat", "ramp"])
def test_the_union_stands_better(trained, name) -> None:
    assert trained[name][-1] > trained["standard"][-1] + 0.15
    assert trained[name][0] > 0.55


def test_the_pair_of_ramp_brings_answers_together() -> None:
    def apart(model: nn.Module) -> float:
        x, y = VALID.x, VALID.y
        b = Batch(x, y, torch.arange(100), Rng.of(0, 100))
        with untouched(model):
            z = recipes.maximum(threats=TWO, attack=QUICK).inner(model, b, Linf(9.0), {})
            p, q = (model(z[k]).log_softmax(1) for k in ("linf", "l1"))
        return float((p.exp() * (p - q)).sum(1).mean())

    with_, without = (
        train(recipes.ramp(lam=lam, threats=TWO, attack=PGD(steps=2, rate=0.6)), plan=LONG) for lam in (5.0, 0.0)
    )
    assert apart(with_) < 0.8 * apart(without)


# ---- killed, refused, and what it costs


@pytest.mark.parametrize(
    "recipe",
    [recipes.eat(threats=TWO, attack=QUICK), recipes.one_norm_per_batch(threats=THREE, attack=QUICK)],
    ids=lambda r: r.name,
)
@pytest.mark.parametrize("stop", [2, 4, 6])
def test_killed_in_the_middle_of_an_epoch(recipe, stop, tmp_path) -> None:
    whole = ends(recipe, None)
    with pytest.raises(KeyboardInterrupt):
        ends(recipe, tmp_path, stop=stop)
    assert ends(recipe, tmp_path, resume=True, seed=9) == whole


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: recipes.average(threats=(Linf(0.1),)), "for several threat models, got 1: with one, take madry"),
        (lambda: recipes.msd(threats=()), "got 0"),
        (lambda: recipes.one_norm_per_batch(threats=(Linf(0.1),)), "got 1"),
        (lambda: recipes.ramp(threats=THREE), "pairs two threat models, got 3"),
        (lambda: recipes.ramp(lam=-1.0), "lam must not be negative"),
        (lambda: recipes.eat(keep=1.0), "keep is the share"),
    ],
)
def test_bad_settings(make, said) -> None:
    with pytest.raises(InputError, match=said):
        make()


def test_a_set_outside_of_one_of_the_boxes() -> None:
    with pytest.raises(InputError, match="outside the box"):
        train(recipes.average(threats=(Linf(0.1), L2(0.5, box=(0.0, 0.5)))))


def test_two_of_a_kind_have_views_of_their_own() -> None:
    recipe = recipes.average(threats=(L2(0.1), Linf(0.1), L2(1.0)))
    assert recipe.views == ("l2_1", "linf", "l2_2")


def test_costs() -> None:
    ten = PGD(steps=10, rate=0.25)
    assert recipes.average(attack=ten).cost == 3 * 20 + 9
    assert recipes.maximum(attack=ten).cost == 3 * 20 + 9
    assert recipes.msd(steps=10).cost == 50 + 3
    assert recipes.one_norm_per_batch(attack=ten).cost == 20 + 3
    assert recipes.eat(attack=ten).cost == 20 + 1 + 3
    assert recipes.ramp(attack=ten).cost == 2 * 20 + 6
    assert OneOf(Keep(), Ascend(FGSM())).cost == 1
    assert all(make().hardens for make in recipes.several.CATALOGUE)


@pytest.mark.parametrize("make", recipes.several.CATALOGUE)
def test_the_cost_is_what_a_hook_counts(make) -> None:
    """Forwards of the inner part: an attack's step is a forward and a backward."""
    recipe, model, seen = make(), smooth(), []
    handle = model.register_forward_pre_hook(lambda m, args: seen.append(args[0].requires_grad))
    with untouched(model):
        recipe.inner(model, a_batch(), Linf(0.1), {})
    handle.remove()
    assert len(seen) + sum(seen) == recipe.inner.cost
