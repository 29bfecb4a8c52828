"""Cheap and paced recipes on embedded digits: they train, they resume, and the guard goes back where it must."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from adamant.attacks import FGSM, PGD
from adamant.data import load_data
from adamant.engine import run
from adamant.goals import Untargeted
from adamant.random import Rng
from adamant.runtime.augment import Flip
from adamant.runtime.knobs import Constant, Ramp
from adamant.runtime.optimizers import Adam
from adamant.threats import Linf
from adamant.training import recipes
from adamant.training.fit import Report, fit
from adamant.training.guards import Collapse
from adamant.training.inner import Ascend, Keep
from adamant.training.plan import Plan
from adamant.training.step import Job
from adamant.training.terms import Misaligned
from adamant.training.views import Views, sloped

DIGITS = load_data("digits", split="train")
HELD = load_data("digits", split="test")
TRAIN, VALID = DIGITS.take(torch.arange(600)), DIGITS.take(torch.arange(600, 700))
EPS = Linf(0.15)
SHORT = PGD(steps=4, rate=0.5)


def network(seed: int = 0) -> nn.Sequential:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    for k, v in model.state_dict().items():
        v.copy_(Rng.of(seed, 1).fold(k).normal(*v.shape)[0] * (0.15 if v.ndim > 1 else 0.0))
    return model


def train(recipe, *, epochs: int = 10, data=TRAIN, seed: int = 0, model=None, plan=None, **settings):
    model = model or network()
    plan = plan or Plan(epochs=epochs, batch_size=50, select=FGSM(), select_rows=100, optimizer=Adam(5e-3))
    report = fit(
        Job(model=model, data=data, validation=VALID, threat=EPS, recipe=recipe, plan=plan, seed=seed, **settings)
    )
    return model, report


def robust(model: nn.Module) -> float:
    return run(PGD(steps=10, rate=0.25), model, HELD.x, Untargeted(HELD.y), EPS).robust_accuracy


RUNS = {
    "fast": (recipes.fast(), 10),
    "nfgsm": (recipes.nfgsm(), 10),
    "free": (recipes.free(replay=5), 2),
    "gradalign": (recipes.gradalign(), 10),
    "prior": (recipes.prior(reset=4), 10),
    "gat": (recipes.gat(), 10),
    "nuat": (recipes.nuat(), 10),
    "curriculum": (recipes.curriculum(steps=(1, 2, 3)), 10),
    "fat": (recipes.fat(steps=4, rate=0.5), 10),
    "iaat": (recipes.iaat(attack=SHORT), 10),
    "mma": (recipes.mma(attack=SHORT, rounds=4), 10),
}


@pytest.fixture(scope="module")
def ordinary() -> float:
    return robust(train(recipes.standard())[0])


@pytest.mark.parametrize("name", RUNS)
def test_every_recipe_hardens_and_no_guard_cries_wolf(name, ordinary) -> None:
    recipe, epochs = RUNS[name]
    assert recipe.hardens
    model, report = train(recipe, epochs=epochs)
    assert robust(model) > ordinary + 0.1
    assert float((model(HELD.x).argmax(1) == HELD.y).double().mean()) > 0.7
    assert report.events == ()
    assert all(report.epochs[-1][k] > 0.4 for k in ("clean", "robust"))


def test_gradient_alignment_rises_with_its_weight() -> None:
    """Of the penalty the paper says: the larger lam, the better the gradients agree."""

    def misaligned(lam: float) -> float:
        model, _ = train(recipes.gradalign(lam=lam), epochs=5)
        v = Views(sloped({"clean": HELD.x}, ["clean"]), HELD.y, model, threat=EPS, rng=Rng.of(0, len(HELD.y)))
        return float(Misaligned()(v).detach().mean())

    assert misaligned(3.0) < 0.7 * misaligned(0.0)


# ---- killed and resumed

SMALL = DIGITS.take(torch.arange(96))


@pytest.mark.parametrize("name", ["free", "prior", "iaat", "fast"])
@pytest.mark.parametrize("at", [(7, "loss"), (12, "epoch"), (13, "loss")], ids=str)
def test_a_killed_run_goes_on_bit_for_bit(name, at, tmp_path) -> None:
    recipe = {"free": recipes.free(replay=2), "prior": recipes.prior(reset=2)}.get(name, RUNS[name][0])
    recipe = replace(recipe, guard=Collapse(every=4, share=9.0, rows=32))
    plan = Plan(epochs=2 if name == "free" else 4, batch_size=16, select=FGSM(), select_rows=16, save_every=0.0)

    def go(folder=None, *, stop=None, resume=False, seed=0) -> tuple[list[bytes], int]:
        def watch(step: int, steps: int, words: str) -> None:
            if stop and step == stop[0] and words.startswith(stop[1]):
                raise KeyboardInterrupt

        model, report = train(
            recipe, data=SMALL, plan=plan, folder=folder, resume=resume, watch=watch, model=network(seed)
        )
        return [v.numpy().tobytes() for v in model.state_dict().values()], report.best_epoch

    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, stop=at)
    assert go(tmp_path, resume=True, seed=9) == go()


def test_replays_see_the_same_pictures_and_carry_the_change() -> None:
    seen: list[torch.Tensor] = []
    model = network()
    handle = model.register_forward_pre_hook(lambda m, a: seen.append(a[0].detach()) if m.training else None)
    plan = Plan(epochs=1, batch_size=48, select=FGSM(), select_rows=16, augment=(Flip(),))
    train(recipes.free(replay=3, guard=None), data=SMALL, plan=plan, model=model)
    handle.remove()
    assert len(seen) == 6
    first, second = seen[:3], seen[3:]
    assert any(torch.equal(first[0], SMALL.x[r]) is False for r in [slice(0, 48)])
    for replays in (first, second):
        steps = [(z - first[0] if replays is first else z - replays[0]).abs().amax() for z in replays]
        assert max(steps) <= 2 * 0.15 + 1e-6
    assert torch.equal(first[0], first[0].clamp(0, 1))
    assert not torch.equal(first[0], first[1])
    assert (first[1] - first[0]).abs().amax() <= 0.15 + 1e-6


# ---- the guard


class Scripted:
    """A guard that is told what it sees."""

    rows = 8

    def __init__(self, *seen: tuple[float, float]) -> None:
        self.seen, self.budgets, self.bests = list(seen), list[float](), list[float]()

    def interval(self, cost: int) -> int:
        return 3

    def probe(self, model, x, y, threat, rng) -> tuple[float, float]:
        self.budgets.append(threat.eps)
        return self.seen.pop(0) if self.seen else (0.5, 0.5)

    def alarm(self, probe, best) -> str:
        self.bests.append(best)
        return Collapse().alarm(probe, best)


def scripted(guard: Scripted, recipe=None) -> Report:
    plan = Plan(epochs=2, batch_size=16, select=FGSM(), select_rows=16)
    return train(replace(recipe or recipes.fast(), guard=guard), data=SMALL, plan=plan)[1]


def test_a_collapse_takes_the_run_back_and_strengthens_the_attack_and_says_so() -> None:
    report = scripted(Scripted((0.5, 0.6), (0.1, 0.9), (0.6, 0.6), (0.2, 0.7)))
    assert [(e["step"], e["back_to"]) for e in report.events] == [(6, 3), (9, 6)]
    assert "one step leaves 90.0% of the training rows standing, several leave 10.0%" in report.events[0]["why"]
    assert [e["now"][:20] for e in report.events] == ["Ascend(PGD(steps=2, ", "Ascend(PGD(steps=3, "]
    assert report.steps == 12


def test_only_a_probe_says_that_a_place_is_good() -> None:
    """An epoch that ends between two probes may have collapsed already."""
    guard = Scripted((0.5, 0.6), (0.5, 0.6))
    guard.interval = lambda cost: 4
    guard.seen = [(0.5, 0.6), (0.1, 0.9)]
    report = scripted(guard)
    assert [(e["step"], e["back_to"]) for e in report.events] == [(8, 4)]


def test_a_guard_gives_up_where_no_attack_is_stronger() -> None:
    assert scripted(Scripted(*[(0.0, 0.9)] * 50), replace(recipes.standard(), inner=Keep())).events == ()
    events = scripted(Scripted(*[(0.0, 0.9)] * 50)).events
    assert [e["back_to"] for e in events] == [0] * 5


def test_probes_look_within_the_budget_of_the_moment_and_forget_the_best_of_another() -> None:
    guard = Scripted((0.5, 0.5), (0.4, 0.4), (0.3, 0.3), (0.3, 0.3))
    scripted(guard, recipes.fast(eps=Ramp(until=0.5, low=0.2)))
    assert guard.budgets == pytest.approx([0.15 * Ramp(until=0.5, low=0.2)(s / 12) for s in (3, 6, 9, 12)])
    assert guard.bests == [0.0, 0.0, 0.4, 0.4]


@pytest.mark.parametrize(
    ("many", "one", "best", "cries"),
    [
        (0.02, 0.95, 0.0, True), (0.3, 0.75, 0.3, True), (0.3, 0.55, 0.5, True),
        (0.1, 0.15, 0.6, False), (0.5, 0.8, 0.58, False), (0.5, 0.8, 0.0, False), (0.0, 0.35, 0.0, False),
    ],
)  # fmt: skip
def test_the_alarm_is_a_gap_and_not_a_bad_day(many, one, best, cries) -> None:
    assert bool(Collapse().alarm((many, one), best)) == cries


@pytest.mark.parametrize(("cost", "batch"), [(5, 128), (5, 32), (3, 64), (17, 256)])
def test_probes_cost_a_small_share_of_the_run(cost, batch) -> None:
    """Counted with a hook: passes of the probe, over those of the steps between two."""
    model, rows = network(), []
    model.register_forward_hook(lambda m, a, out: rows.append(len(out) * (2 if torch.is_grad_enabled() else 1)))
    guard = Collapse()
    guard.probe(model, TRAIN.x[: guard.rows], TRAIN.y[: guard.rows], EPS, Rng.of(0, guard.rows))
    between = guard.interval(cost * batch)
    assert sum(rows) / (between * cost * batch) < 0.03
    assert between == 25 or sum(rows) / (between * cost * batch) > 0.02


def test_a_probe_is_the_accuracy_under_many_steps_and_under_one() -> None:
    model, rng, x, y = network(), Rng.of(3, 60), TRAIN.x[:60], TRAIN.y[:60]
    model, _ = train(recipes.standard(), epochs=2, model=model)
    guard = Collapse(attack=PGD(steps=2, rate=0.3))
    z = EPS.sample(x, rng.fold("start"))
    for start, steps, rate in ((x, 1, 1.0), (z, 2, 0.3)):
        for _ in range(steps):
            w = start.detach().requires_grad_()
            (g,) = torch.autograd.grad(F.cross_entropy(model(w), y), w)
            start = EPS.project(w.detach() + rate * 0.15 * g.sign(), x)
        found = guard.probe(model, x, y, EPS, rng)[steps == 1]
        assert found == pytest.approx(float((model(start).argmax(1) == y).double().mean()))
        assert 0 < found < 1


# ---- a real collapse


@dataclass(frozen=True)
class Pictures:
    x: torch.Tensor
    y: torch.Tensor


def strided() -> nn.Sequential:
    """A small network of convolutions, with weights from a stream of its own."""
    layers = [nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10))
    for k, v in model.state_dict().items():
        v.copy_(Rng.of(0, 1).fold(k).normal(*v.shape)[0] * (1.2 / v[0].numel() ** 0.5 if v.ndim > 1 else 0.0))
    return model


def ended(recipe, threat: Linf, rows: Pictures, held: Pictures, model: nn.Module, plan: Plan):
    """Accuracy under one step and under many of the weights at the end of the run, on rows; and the report."""
    last: dict[str, torch.Tensor] = {}

    def watch(step: int, steps: int, words: str) -> None:
        if step == steps:
            last.update({k: v.clone() for k, v in model.state_dict().items()})

    made = Job(model=model, data=rows, validation=held, threat=threat, recipe=recipe, plan=plan, watch=watch)
    report = fit(made)
    model.load_state_dict(last)
    x, y = rows.x[:200], rows.y[:200]
    attacks = (FGSM(), PGD(steps=20, rate=0.125))
    one, many = (run(a, model, x, Untargeted(y), threat).robust_accuracy for a in attacks)
    return one, many, report


def test_the_guard_ends_catastrophic_overfitting() -> None:
    """FGSM on digits of 16 x 16 at a high learning rate comes to answer one step, and several no more."""
    x = F.interpolate(DIGITS.x, size=16, mode="bilinear", align_corners=False).clamp(0, 1)
    rows, held = Pictures(x[:1000], DIGITS.y[:1000]), Pictures(x[1000:1100], DIGITS.y[1000:1100])
    plan = Plan(
        epochs=16, batch_size=50, optimizer=Adam(1.5e-2), shape=Constant(), select=FGSM(), select_rows=16
    )  # fmt: skip
    plain = replace(recipes.fast(guard=None), inner=Ascend(FGSM()))
    one, many, report = ended(plain, EPS, rows, held, strided(), plan)
    assert one > 0.6
    assert many < 0.35
    assert report.events == ()
    _, guarded, report = ended(replace(plain, guard=Collapse(share=0.3)), EPS, rows, held, strided(), plan)
    assert guarded > many + 0.1, (many, guarded, report.events)
    assert report.events[0]["now"].startswith("Ascend(PGD(steps=2, ")
    assert "one step leaves" in report.events[0]["why"]
    assert report.events[0]["back_to"] < report.events[0]["step"]
