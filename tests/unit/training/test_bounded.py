"""Certified recipes: their formulas, what they cost, what they do to a small network, and that they can be killed."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adamant.attacks import FGSM, PGD
from adamant.bounds import Intervals, Lines, initialise_for_bounds, margins, surest
from adamant.calling import untouched
from adamant.data import load_data
from adamant.errors import InputError, ModelError
from adamant.random import Rng
from adamant.runtime.knobs import Constant, Ramp
from adamant.threats import L0, L2, Linf
from adamant.training import Adam, Job, Plan, fit, recipes
from adamant.training.bounded import Blend, Guarantee
from adamant.training.inner import Ascend
from adamant.training.outer import CE
from adamant.training.parts import Batch
from adamant.training.views import Views, cost_of

N, D, K = 6, 5, 3


def net(*, norm: bool = False) -> nn.Sequential:
    torch.default_generator.manual_seed(0)
    middle = [nn.BatchNorm1d(8)] if norm else []
    return nn.Sequential(nn.Linear(D, 8), *middle, nn.ReLU(), nn.Linear(8, K))


def batch() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.rand(N, D, generator=g), torch.randint(0, K, (N,), generator=g)


def views(done: float = 1.0, model: nn.Module | None = None, eps: float = 0.1) -> tuple[Views, nn.Module]:
    x, y = batch()
    model = model or net()
    adv = Linf(eps).sample(x, Rng.of(3, N))
    return Views({"clean": x, "adv": adv}, y, model, threat=Linf(eps), done=done), model


def by_hand(model: nn.Sequential, low: Tensor, high: Tensor, y: Tensor) -> Tensor:
    """Gowal et al. (2018), sections 3.1 to 3.4: middle and reach through the layers, the last one with the margins."""
    first, last = model[0], model[-1]
    middle, reach = (low + high) / 2, (high - low) / 2
    middle, reach = middle @ first.weight.T + first.bias, reach @ first.weight.abs().T
    low, high = (middle - reach).relu(), (middle + reach).relu()
    worst = torch.zeros(len(y), K)
    for i in range(len(y)):
        for j in range(K):
            w = last.weight[j] - last.weight[y[i]]
            worst[i, j] = torch.where(w > 0, w * high[i], w * low[i]).sum() + last.bias[j] - last.bias[y[i]]
    return F.cross_entropy(worst, y, reduction="none")


# ---- formulas


@pytest.mark.parametrize("done", [0.0, 0.25, 0.7])
def test_ibp_is_its_formula(done) -> None:
    v, model = views(done)
    x, y = batch()
    kappa = 1 - 0.5 * min(1, done / 0.5)
    bound = by_hand(model, (x - 0.1).clamp(0, 1), (x + 0.1).clamp(0, 1), y)
    expected = kappa * F.cross_entropy(model(x), y, reduction="none") + (1 - kappa) * bound
    assert torch.allclose(recipes.ibp().outer(v), expected, atol=1e-5)
    assert (bound > F.cross_entropy(model(x), y, reduction="none")).all()


def test_the_gradient_by_the_weights_is_that_of_the_formula() -> None:
    v, model = views()
    x, y = batch()
    Guarantee()(v).mean().backward()
    found = {k: p.grad.clone() for k, p in model.named_parameters()}
    model.zero_grad()
    by_hand(model, (x - 0.1).clamp(0, 1), (x + 0.1).clamp(0, 1), y).mean().backward()
    for k, p in model.named_parameters():
        assert torch.allclose(found[k], p.grad, atol=1e-6), k
        assert p.grad.abs().sum() > 0 or k == "2.bias"


def test_crown_ibp_passes_from_lines_to_intervals() -> None:
    _, model = views()
    x, y = batch()
    lines, plain = (margins(model, x, y, Linf(0.1), bound=b) for b in (Lines(), Intervals()))
    for done, part in ((0.0, 0.0), (0.3, 0.5), (0.9, 1.0)):
        found = recipes.crown_ibp().outer.second(views(done)[0])
        expected = F.cross_entropy(-((1 - part) * lines + part * plain), y, reduction="none")
        assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(lines, plain, atol=1e-2)


def test_sabr_bounds_a_small_box_within_the_whole() -> None:
    v, model = views()
    x, y = batch()
    middle = v.inputs["adv"].clamp(x - 0.06, x + 0.06).clamp(0, 1)
    low, high = (middle - 0.04).clamp(0, 1), (middle + 0.04).clamp(0, 1)
    assert Linf(0.1).contains(low.clamp(0, 1), x).logical_or((x - low).amax(1) < 0.1 + 1e-6).all()
    assert torch.allclose(recipes.sabr(share=0.4).outer(v), by_hand(model, low, high, y), atol=1e-4)
    assert (recipes.sabr(share=0.1).outer(views()[0]) < recipes.sabr(share=0.9).outer(views()[0])).all()
    whole = recipes.sabr(share=1.0).outer(views()[0])
    around = by_hand(model, (v.inputs["adv"] - 0.1).clamp(0, 1), (v.inputs["adv"] + 0.1).clamp(0, 1), y)
    assert torch.allclose(whole, around, atol=1e-5) or torch.allclose(whole, Guarantee()(views()[0]), atol=1e-5)


def test_mtl_ibp_is_its_formula() -> None:
    v, model = views()
    x, y = batch()
    bound = by_hand(model, (x - 0.1).clamp(0, 1), (x + 0.1).clamp(0, 1), y)
    expected = 0.7 * F.cross_entropy(model(v.inputs["adv"]), y, reduction="none") + 0.3 * bound
    assert torch.allclose(recipes.mtl_ibp(alpha=0.3).outer(v), expected, atol=1e-5)


def test_in_words() -> None:
    assert "k(t) CE(clean) + (1 - k(t)) CE(worst by intervals around clean)" in recipes.ibp().formula
    assert "CE(worst by intervals around adv, 0.4 eps)" in recipes.sabr().formula
    assert "worst by lines and intervals" in recipes.crown_ibp().formula
    assert "0.5 CE(adv) + (1 - 0.5) CE(worst" in recipes.mtl_ibp().formula
    for make in (recipes.ibp, recipes.crown_ibp, recipes.sabr, recipes.mtl_ibp):
        assert make().hardens


# ---- what it costs


@pytest.mark.parametrize(
    ("outer", "forwards", "cost"),
    [(recipes.ibp().outer, 3, 9), (recipes.mtl_ibp().outer, 3, 9), (Guarantee(around="adv", share=0.4), 3, 9)],
    ids=str,
)
def test_three_forwards_and_their_backwards(outer, forwards, cost, monkeypatch) -> None:
    """Through the first layer go point, middle and reach; the clean loss takes the point's logits."""
    seen, true = [], F.linear

    def counting(z, *rest):
        seen.append(isinstance(z, Tensor) and z.shape == (N, D))
        return true(z, *rest)

    monkeypatch.setattr(F, "linear", counting)
    outer(views()[0])
    assert sum(seen) == forwards
    assert cost_of(outer) == cost == 3 * forwards


def test_costs() -> None:
    assert recipes.ibp().cost == 9
    assert recipes.sabr(attack=PGD(steps=3)).cost == 6 + 9
    assert recipes.mtl_ibp(attack=FGSM()).cost == 2 + 9
    assert recipes.crown_ibp().cost == 9 + 30


def test_batch_statistics_are_those_of_the_clean_batch_and_gathered_once() -> None:
    model = net(norm=True)
    v, _ = views(model=model)
    recipes.ibp().outer(v)
    assert int(model[1].num_batches_tracked) == 1
    x, _ = batch()
    assert torch.allclose(model[1].running_mean, 0.1 * model[0](x).mean(0), atol=1e-6)
    logits = net(norm=True)(x)
    assert torch.allclose(v.logits("clean"), logits, atol=1e-5)


# ---- what it is for

DIGITS = load_data("digits", split="train").take(torch.arange(900))
HELD = load_data("digits", split="test")
EPS = Linf(0.1)
QUICK = PGD(steps=2, rate=0.6)
PLAN = Plan(epochs=12, batch_size=50, optimizer=Adam(1e-2), select=QUICK, select_rows=100, clip=10.0)


def held_share(model: nn.Module) -> float:
    return float((surest(margins(model, HELD.x, HELD.y, EPS), HELD.y) > 0).double().mean())


def trained(recipe, *, norm: bool = False) -> tuple[nn.Module, float, float]:
    middle = [nn.BatchNorm1d(64)] if norm else []
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), *middle, nn.ReLU(), nn.Linear(64, 10))
    initialise_for_bounds(model)
    fit(Job(model=model, data=DIGITS, validation=HELD.take(torch.arange(100)), threat=EPS, recipe=recipe, plan=PLAN))
    clean = float((model(HELD.x).argmax(1) == HELD.y).double().mean())
    return model, clean, held_share(model)


@pytest.mark.parametrize(
    ("recipe", "least"),
    [
        (recipes.ibp(), 0.42),
        (recipes.ibp(kappa=Ramp(until=0.5, low=1.0, high=0.0), eps=Ramp(until=0.5, high=1.2)), 0.48),
        (recipes.crown_ibp(), 0.33),
        (recipes.sabr(attack=QUICK), 0.37),
        (recipes.mtl_ibp(alpha=0.9), 0.48),
    ],
    ids=lambda v: getattr(v, "name", v),
)
def test_bounds_hold_rows_after_training_by_bounds(recipe, least) -> None:
    _, clean, held = trained(recipe)
    assert clean > 0.85
    assert held > least


def test_bounds_hold_few_rows_after_ordinary_training() -> None:
    assert trained(recipes.standard())[2] < 0.05


def test_a_recipe_that_attacks_nothing_is_chosen_by_what_its_bound_holds() -> None:
    some = HELD.take(torch.arange(100))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    initialise_for_bounds(model)
    job = Job(
        model=model, data=DIGITS, validation=some, threat=EPS, recipe=recipes.ibp(), plan=replace(PLAN, select=None)
    )  # fmt: skip
    report = fit(job)
    best = report.epochs[report.best_epoch - 1]
    held = surest(margins(model, some.x, some.y, EPS), some.y) > 1e-5
    assert best["robust"] == pytest.approx(float(held.double().mean()))
    assert best["robust"] == max(e["robust"] for e in report.epochs) > 0.2
    assert best["clean"] == pytest.approx(float((model(some.x).argmax(1) == some.y).double().mean()))


def test_with_batch_normalisation() -> None:
    _, clean, held = trained(recipes.ibp(), norm=True)
    assert clean > 0.85
    assert held > 0.3


# ---- killed, and refused

TINY = Plan(epochs=2, batch_size=16, select=FGSM(), save_every=0.0, select_rows=32, dropout=0.2, clip=1.0)


@pytest.mark.parametrize("recipe", [recipes.ibp(), recipes.sabr(attack=QUICK)], ids=lambda r: r.name)
def test_a_killed_run_goes_on_bit_for_bit(recipe, tmp_path) -> None:
    def run(stop: int | None, **more) -> bytes:
        torch.default_generator.manual_seed(1)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))

        def watch(step: int, steps: int, text: str) -> None:
            if step == stop:
                raise KeyboardInterrupt

        rows, others = DIGITS.take(torch.arange(64)), DIGITS.take(torch.arange(64, 128))
        fit(Job(model=model, data=rows, validation=others, threat=EPS, recipe=recipe, plan=TINY, watch=watch, **more))
        return b"".join(v.numpy().tobytes() for v in model.state_dict().values())

    whole = run(None)
    for step in (2, 6):
        with pytest.raises(KeyboardInterrupt):
            run(step, folder=tmp_path, resume=True)
    assert run(None, folder=tmp_path, resume=True) == whole


@pytest.mark.parametrize("value", [0.0, -0.5, 1.5, float("nan")])
def test_shares_that_are_none(value) -> None:
    with pytest.raises(InputError, match="share is a share, above 0 and no more than 1"):
        recipes.sabr(share=value)
    with pytest.raises(InputError, match="alpha is a share"):
        recipes.mtl_ibp(alpha=value)


def test_what_cannot_be_bounded_is_refused() -> None:
    job = {"data": DIGITS, "validation": DIGITS, "plan": TINY, "recipe": recipes.ibp()}
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(InputError, match="Bounds are of the balls Linf, L2 and L1, and L0 is none"):
        fit(Job(model=flat, threat=L0(2), **job))
    with pytest.raises(ModelError, match="The model calls log_softmax, which bounds do not go through"):
        fit(Job(model=nn.Sequential(*flat, nn.LogSoftmax(1)), threat=EPS, **job))
    with pytest.raises(InputError, match="ibp bounds layer by layer, which a compiled model hides"):
        fit(Job(model=flat, threat=EPS, **{**job, "plan": replace(TINY, compile=True)}))


def test_within_l2() -> None:
    """The dual norm at the first layer, with its gradient."""
    x, y = batch()
    model = net()
    v = Views({"clean": x}, y, model, threat=L2(0.1, box=(-9.0, 9.0)))
    loss = Guarantee()(v)
    first, last = model[0], model[-1]
    middle, reach = first(x), 0.1 * first.weight.norm(dim=1)
    low, high = (middle - reach).relu(), (middle + reach).relu()
    w = last.weight[None] - last.weight[y][:, None]
    b = last.bias[None] - last.bias[y][:, None]
    worst = (w.clamp_min(0) * high[:, None] + w.clamp_max(0) * low[:, None]).sum(2) + b
    assert torch.allclose(loss, F.cross_entropy(worst, y, reduction="none"), atol=1e-5)
    loss.mean().backward()
    found = first.weight.grad.clone()
    model.zero_grad()
    F.cross_entropy(worst, y).backward()
    assert torch.allclose(found, first.weight.grad, atol=1e-6)


def test_the_budget_of_a_step_is_the_one_that_counts() -> None:
    small, large = (Guarantee()(views(eps=e)[0]) for e in (0.01, 0.2))
    assert (small < large).all()
    blend = Blend(CE("clean"), Guarantee(), Constant(1.0))
    assert torch.allclose(blend(views()[0]), CE("clean")(views()[0]), atol=1e-6)


def test_the_attack_of_sabr_is_the_same_as_everywhere() -> None:
    x, y = batch()
    model, b = net().eval(), Batch(x, y, torch.arange(N), Rng.of(5, N))
    with untouched(model):
        assert torch.equal(
            recipes.sabr(attack=QUICK).inner(model, b, EPS, {})["adv"], Ascend(QUICK)(model, b, EPS, {})["adv"]
        )


def test_bounds_are_never_in_half_precision() -> None:
    """Neither the precision nor the layout of a plan changes what bounds make of it."""
    ends = []
    for more in ({}, {"autocast": True}, {"channels_last": True}):
        torch.default_generator.manual_seed(1)
        model = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 10))
        plan = replace(TINY, epochs=1, dropout=0.0, **more)
        fit(Job(model=model, data=DIGITS.take(torch.arange(64)), validation=HELD, threat=EPS, recipe=recipes.ibp(),
                plan=plan))  # fmt: skip
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.allclose(ends[0], ends[1], atol=1e-6)
    assert torch.allclose(ends[0], ends[2], atol=1e-4)
