"""The training loop: what it minimises, what it leaves alone, which weights it keeps, and that it can be killed."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adamant.attacks import FGSM, PGD, Union
from adamant.batch import PerRow, Shared
from adamant.calling import untouched
from adamant.data import load_data
from adamant.engine import run
from adamant.errors import InputError, ModelError, RunError
from adamant.goals import Untargeted
from adamant.random import Rng, blend, permutation, sealed
from adamant.runtime import checkpoint
from adamant.runtime.average import EMA
from adamant.runtime.knobs import Constant, Cosine, OneCycle, Ramp
from adamant.runtime.optimizers import SGD, Adam
from adamant.threats import L2, Linf
from adamant.training import fit as fit_job
from adamant.training import recipes
from adamant.training import step as the_step
from adamant.training.fit import fit
from adamant.training.parts import Batch
from adamant.training.plan import Plan
from adamant.training.step import Job

DIGITS = load_data("digits", split="train")
TRAIN, VALID = DIGITS.take(torch.arange(96)), DIGITS.take(torch.arange(96, 160))
QUICK = PGD(steps=2, rate=0.6)
TINY = Plan(epochs=3, batch_size=16, select=FGSM(), save_every=0.0, select_rows=32)


@dataclass(frozen=True)
class Labelled:
    x: Tensor
    y: Tensor


def network(seed: int = 0, *, norm: bool = False, drop: float = 0.0) -> nn.Sequential:
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    middle = [nn.BatchNorm1d(16)] if norm else []
    layers = [nn.Flatten(), nn.Linear(64, 16), *middle, nn.ReLU(), nn.Dropout(drop), nn.Linear(16, 10)]
    torch.set_rng_state(state)
    return nn.Sequential(*layers)


def job(recipe=None, model: nn.Module | None = None, **settings) -> Job:
    made = {"data": TRAIN, "validation": VALID, "threat": Linf(0.1), "plan": TINY, **settings}
    return Job(model=model or network(), recipe=recipe or recipes.madry(attack=QUICK), **made)


def weights(model: nn.Module) -> bytes:
    return b"".join(v.numpy().tobytes() for v in model.state_dict().values())


# ---- what training is for

REAL = DIGITS.take(torch.arange(600))
HELD = load_data("digits", split="test")
EPS = Linf(0.15)


@pytest.fixture(scope="module")
def trained() -> dict[str, tuple[float, float]]:
    """Clean and robust accuracy on test rows of a small network, by recipe."""
    found = {}
    attack = PGD(steps=5, rate=0.4)
    for recipe in (
        recipes.standard(),
        recipes.madry(attack=attack),
        recipes.mixed(),
        recipes.mixed(adaptive=0.5),
        recipes.augmented(),
        replace(recipes.madry(attack=attack, average=EMA(0.9)), name="averaged"),
    ):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        model.load_state_dict(_start)
        plan = Plan(epochs=10, batch_size=50, select=QUICK, select_rows=100, optimizer=Adam(5e-3))
        name = recipe.name + ("+adaptive" if "lambda_t" in recipe.formula else "")
        fit(Job(model=model, data=REAL, validation=HELD.take(torch.arange(100)), threat=EPS, recipe=recipe, plan=plan))
        x, y = HELD.x[100:], HELD.y[100:]
        out = run(PGD(steps=10), model, x, Untargeted(y), EPS)
        found[name] = (float((model(x).argmax(1) == y).double().mean()), out.robust_accuracy)
    return found


_start = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).state_dict()
_start = {
    k: Rng.of(0, 1).fold(k).normal(*v.shape)[0] * (0.15 if v.ndim > 1 else 0.0) for k, v in sorted(_start.items())
}


def test_ordinary_training_learns(trained) -> None:
    clean, robust = trained["standard"]
    assert clean > 0.9
    assert robust < clean - 0.3


@pytest.mark.parametrize("name", ["madry", "mixed", "mixed+adaptive", "augmented", "averaged"])
def test_hardening_raises_robust_accuracy(trained, name) -> None:
    clean, robust = trained[name]
    assert robust > trained["standard"][1] + (0.04 if name == "augmented" else 0.1)
    assert clean > 0.8


# ---- the step


def by_hand(steps: int, *, l1: float = 0.0, l2: float = 0.0, dropout: float = 0.0, lam: float | None = None):
    """The same training in plain torch: SGD with momentum on the loss at the points of the attack."""
    model = network(drop=0.3)
    data = job()
    opt = SGD(0.1).build(model, l2)
    for step in range(steps):
        epoch, place = divmod(step, 6)
        rows = permutation(96, 0, f"epoch {epoch}")[place * 16 : place * 16 + 16]
        x, y = TRAIN.x[rows], TRAIN.y[rows]
        rng = Rng.of(0, rows).fold("step").fold(step)
        recipe = data.recipe
        model.eval()
        with untouched(model):
            z = recipe.inner(model, Batch(x, y, rows, rng), Linf(0.1), {})["adv"]
        model.train()
        for group in opt.param_groups:
            group["lr"] = 0.1 * Cosine()(step / 18)
        with sealed(blend(0, step)):

            def logits(v: Tensor) -> Tensor:
                h = model[:-1](v)
                return model[-1](F.dropout(h, dropout, training=True) if dropout else h)

            if lam is None:
                loss = F.cross_entropy(logits(z), y)
            else:
                loss = F.cross_entropy(logits(x), y) + lam * F.cross_entropy(logits(z), y)
        loss = loss + l1 * sum(p.abs().sum() for n, p in model.named_parameters() if "weight" in n)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return model


@pytest.mark.parametrize("extra", [{}, {"l1": 1e-3}, {"l2": 0.05}, {"dropout": 0.4}, {"lam": 0.5}], ids=str)
def test_training_is_what_its_formula_says(extra) -> None:
    """One epoch, weight for weight; also: dropout is off in the attack, and the rate follows its knob."""
    extra = dict(extra)
    expected = by_hand(6, **extra)
    lam = extra.pop("lam", None)
    recipe = recipes.madry(attack=QUICK) if lam is None else recipes.mixed(attack=QUICK, lam=lam)
    plan = replace(TINY, optimizer=SGD(0.1), shape=Cosine(), **extra)
    model, stopped = network(drop=0.3), []

    def watch(step: int, steps: int, text: str) -> None:
        if step == 6 and "epoch" not in text:
            stopped.append({k: v.clone() for k, v in model.state_dict().items()})

    fit(job(recipe, model, plan=plan, watch=watch))
    for k, v in expected.state_dict().items():
        assert torch.allclose(stopped[0][k], v, atol=1e-6), k


def test_penalties_shrink_weights() -> None:
    norms = {}
    for name, extra in {"none": {}, "l1": {"l1": 0.01}, "l2": {"l2": 5.0}}.items():
        model = network()
        fit(job(recipes.standard(), model, plan=replace(TINY, **extra)))
        norms[name] = sum(float(p.detach().abs().sum()) for p in model.parameters() if p.ndim > 1)
    assert norms["l1"] < 0.9 * norms["none"]
    assert norms["l2"] < 0.97 * norms["none"]


def test_dropout_leaves_the_network_as_it_was_and_is_off_outside_of_training() -> None:
    model = network()
    fit(job(model=model, plan=replace(TINY, dropout=0.5)))
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    assert torch.equal(model(VALID.x), model(VALID.x))
    with pytest.raises(InputError, match="the model has none: set dropout to 0"):
        fit(job(model=nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten()), plan=replace(TINY, dropout=0.5)))


def test_dropout_is_removed_when_training_breaks() -> None:
    model = network()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(job(model=model, plan=replace(TINY, dropout=0.5), watch=stop))
    assert not any(m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("recipe", "views"), [(recipes.madry(attack=QUICK), 1), (recipes.mixed(), 2), (recipes.augmented(), 2)]
)
def test_statistics_are_gathered_once_for_each_view_of_a_step(recipe, views) -> None:
    """Neither the attack nor the validation may move them."""
    model = network(norm=True)
    seen = []
    fit(job(recipe, model, watch=lambda step, steps, text: seen.append((step, int(model[2].num_batches_tracked)))))
    assert all(count == views * step for step, count in seen)
    assert len(seen) == 18 + 3


def test_the_attack_sees_the_model_in_eval_mode_with_frozen_weights() -> None:
    model, calls = network(norm=True, drop=0.5), []

    def look(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        frozen = not any(p.requires_grad for p in model.parameters())
        calls.append((any(m.training for m in model.modules()), frozen, args[0].requires_grad))

    handle = model.register_forward_pre_hook(look)
    fit(job(model=model, plan=replace(TINY, epochs=1)))
    handle.remove()
    attack, training = [c for c in calls if c[2]], [c for c in calls if c[0]]
    assert len(training) == 6
    assert all(not frozen and not by_input for _, frozen, by_input in training)
    assert len(attack) >= 12
    assert all(frozen and not mode for mode, frozen, _ in attack)


def test_training_leaves_everything_else_alone() -> None:
    model = network(norm=True)
    model[1].bias.requires_grad_(False)
    kept_bias = model[1].bias.clone()
    before, x = torch.get_rng_state(), TRAIN.x.clone()
    fit(job(model=model, plan=replace(TINY, dropout=0.2)))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(TRAIN.x, x)
    assert not any(m.training for m in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True, True, True]
    assert torch.equal(model[1].bias, kept_bias)


def test_the_seed_decides_and_nothing_else() -> None:
    def train(seed: int, noise: int) -> bytes:
        torch.manual_seed(noise)
        model = network(drop=0.2)
        fit(job(model=model, seed=seed))
        return weights(model)

    assert train(1, 0) == train(1, 99)
    assert train(1, 0) != train(2, 0)


def test_every_row_has_its_turn_once_an_epoch_in_a_new_order(monkeypatch) -> None:
    orders: list[list[int]] = []
    true = the_step.placed
    monkeypatch.setattr(the_step, "placed", lambda j, rows: (orders.append(rows.tolist()), true(j, rows))[1])
    fit(job(recipes.standard()))
    orders = [o for o in orders if len(o) == 16]  # without those that see the whole set before an epoch
    epochs = [[row for order in orders[i : i + 6] for row in order] for i in (0, 6, 12)]
    assert all(sorted(e) == list(range(96)) for e in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("knob", [Cosine(), OneCycle(), Constant(0.3), Ramp()], ids=repr)
def test_the_rate_follows_its_knob(knob) -> None:
    report = fit(job(recipes.standard(), plan=replace(TINY, optimizer=SGD(0.2), shape=knob)))
    assert [e["rate"] for e in report.epochs] == pytest.approx([0.2 * knob((6 * e - 1) / 18) for e in (1, 2, 3)])


def test_the_budget_follows_its_knob() -> None:
    seen: list[float] = []

    @dataclass(frozen=True)
    class Watch:
        steps: int = 1
        needs = FGSM.needs
        loss: object = FGSM().loss

        def init(self, p):
            return FGSM().init(p)

        def step(self, p, s, look, t):
            seen.append(p.threat.eps)
            return FGSM().step(p, s, look, t)

    fit(job(recipes.madry(attack=Watch(), eps=Ramp(until=0.5))))
    assert seen == pytest.approx([max(0.1 * Ramp(until=0.5)(s / 18), 1e-13) for s in range(18)])


# ---- which weights are kept


@pytest.mark.parametrize("average", [None, EMA(0.9)], ids=["live", "average"])
def test_the_best_weights_on_validation_rows_are_kept(monkeypatch, average) -> None:
    """Robust accuracy decides, not clean accuracy, not the last epoch; and ties stay with the first."""
    scores = iter([(0.9, 0.2), (0.1, 0.6), (1.0, 0.5), (0.1, 0.6)])
    judged: list[bytes] = []

    def validate(j: Job) -> tuple[float, float]:
        judged.append(weights(j.model))
        return next(scores)

    monkeypatch.setitem(fit_job.__globals__, "validate", validate)
    model = network(norm=True)
    report = fit(job(recipes.madry(attack=QUICK, average=average), model, plan=replace(TINY, epochs=4)))
    assert report.best_epoch == 2
    assert weights(model) == judged[1]
    assert len({*judged}) == 4
    assert [(e["clean"], e["robust"]) for e in report.epochs] == [(0.9, 0.2), (0.1, 0.6), (1.0, 0.5), (0.1, 0.6)]


def test_ordinary_training_is_chosen_by_clean_accuracy(monkeypatch) -> None:
    scores = iter([(0.3, 0.3), (0.9, 0.0), (0.8, 0.1)])
    monkeypatch.setitem(fit_job.__globals__, "validate", lambda j: next(scores))
    assert fit(job(recipes.standard())).best_epoch == 2


def test_validation_is_clean_and_robust_accuracy_on_its_first_rows() -> None:
    model = network()
    report = fit(job(model=model, plan=replace(TINY, epochs=1, select=PGD(steps=3))))
    x, y = VALID.x[:32], VALID.y[:32]
    out = run(PGD(steps=3), model, x, Untargeted(y), Linf(0.1), rng=Rng.of(0, 32).fold("validation"))
    assert report.epochs[0]["clean"] == pytest.approx(float((model(x).argmax(1) == y).double().mean()))
    assert report.epochs[0]["robust"] == pytest.approx(out.robust_accuracy)


def test_validating_does_not_change_the_course(monkeypatch) -> None:
    model, other = network(norm=True, drop=0.2), network(norm=True, drop=0.2)
    last: dict[str, bytes] = {}
    for m, select in ((model, FGSM()), (other, PGD(steps=5))):

        def watch(step: int, steps: int, text: str, m=m) -> None:
            last[f"{id(m)} {step}"] = weights(m)

        recipe = recipes.madry(attack=QUICK, average=EMA())
        fit(job(recipe, m, plan=replace(TINY, select=select), validation=VALID, watch=watch))
    assert last[f"{id(model)} 18"] == last[f"{id(other)} 18"]


def test_averaging_watches_the_course_and_does_not_change_it() -> None:
    ends: list[bytes] = []
    for average in (None, EMA(0.9)):
        model = network(norm=True)

        def watch(step: int, steps: int, text: str, model=model) -> None:
            if step == 18 and text.startswith("loss"):
                ends.append(weights(model))

        fit(job(recipes.madry(attack=QUICK, average=average), model, watch=watch))
    assert ends[0] == ends[1]


def test_patience_ends_a_run_that_does_not_get_better(monkeypatch) -> None:
    scores = iter([(0.5, 0.2), (0.5, 0.4), (0.5, 0.4), (0.5, 0.3), (0.5, 0.9)])
    monkeypatch.setitem(fit_job.__globals__, "validate", lambda j: next(scores))
    report = fit(job(plan=replace(TINY, epochs=9, patience=2)))
    assert (len(report.epochs), report.best_epoch, report.steps) == (4, 2, 24)


# ---- killed and resumed

KILLED = {
    "madry": (
        recipes.madry(attack=QUICK, average=EMA(0.9), eps=Ramp()),
        replace(TINY, optimizer=SGD(0.05), dropout=0.3, l1=1e-4, l2=1e-3),
        {"drop": 0.2},
    ),
    "augmented": (recipes.augmented(keep=2), TINY, {"norm": True}),
    "union": (recipes.mixed(adaptive=0.4), replace(TINY, optimizer=Adam(0.01)), {"norm": True, "drop": 0.1}),
}


def outcome(
    kind: str,
    folder: Path | None,
    *,
    seed: int = 3,
    network_seed: int = 0,
    stop: tuple[int, str] | None = None,
    resume=False,
):
    recipe, plan, parts = KILLED[kind]
    model = network(network_seed, **parts)

    def watch(step: int, steps: int, text: str) -> None:
        if stop and step == stop[0] and text.startswith(stop[1]):
            raise KeyboardInterrupt

    report = fit(job(recipe, model, plan=plan, seed=seed, folder=folder, resume=resume, watch=watch))
    return weights(model), [{k: v for k, v in e.items() if k != "seconds"} for e in report.epochs], report.best_epoch


@pytest.fixture(scope="module")
def whole() -> dict[str, object]:
    return {kind: outcome(kind, None) for kind in KILLED}


@pytest.mark.parametrize("kind", KILLED)
@pytest.mark.parametrize(
    "stop",
    [(2, "loss"), (6, "loss"), (6, "epoch"), (7, "loss"), (11, "loss"), (12, "epoch"), (18, "loss"), (18, "epoch")],
    ids=str,
)
def test_a_killed_run_goes_on_bit_for_bit(kind, stop, whole, tmp_path) -> None:
    torch.manual_seed(1)
    with pytest.raises(KeyboardInterrupt):
        outcome(kind, tmp_path, stop=stop)
    torch.manual_seed(2)
    assert outcome(kind, tmp_path, network_seed=77, resume=True) == whole[kind]


def test_a_run_may_be_killed_again_and_again(whole, tmp_path) -> None:
    for step in (2, 3, 7, 8, 13, 17):
        with pytest.raises(KeyboardInterrupt):
            # the first network is the one that counts: later ones are overwritten by the checkpoint
            outcome("madry", tmp_path, stop=(step, "loss"), network_seed=step if step > 2 else 0, resume=True)
    assert outcome("madry", tmp_path, network_seed=5, resume=True) == whole["madry"]


def test_resuming_a_finished_run_gives_it_back(whole, tmp_path) -> None:
    outcome("augmented", tmp_path)
    assert outcome("augmented", tmp_path, network_seed=9, resume=True) == whole["augmented"]
    assert outcome("augmented", tmp_path, resume=False) == whole["augmented"]


def test_between_epochs_checkpoints_wait(tmp_path, monkeypatch) -> None:
    saved: list[int] = []
    true = checkpoint.save
    monkeypatch.setattr(
        checkpoint, "save", lambda p, m, o, progress, i: (saved.append(progress.step), true(p, m, o, progress, i))
    )
    fit(job(plan=replace(TINY, save_every=1e9), folder=tmp_path))
    assert saved == [6, 12, 18]


OTHERS = {
    "recipe": {"recipe": recipes.madry(attack=PGD(steps=3))},
    "plan": {"plan": replace(TINY, l2=0.1)},
    "threat": {"threat": Linf(0.1, box=(0.0, 2.0))},
    "seed": {"seed": 1},
    "inputs": {"data": Labelled(TRAIN.x.flip(0), TRAIN.y)},
    "labels": {"data": Labelled(TRAIN.x, TRAIN.y.flip(0))},
    "fewer rows": {"data": Labelled(TRAIN.x[:80], TRAIN.y[:80])},
    "validation": {"validation": Labelled(VALID.x.flip(0), VALID.y.flip(0))},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("run")
    fit(job(folder=place))
    return place


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_another_run_is_not_continued(other, folder) -> None:
    before = (folder / "checkpoint.safetensors").read_bytes()
    model = network(4)
    kept = weights(model)
    with pytest.raises(RunError, match=r"belongs to another run:\n  it was"):
        fit(job(model=model, folder=folder, resume=True, **other))
    assert weights(model) == kept
    assert (folder / "checkpoint.safetensors").read_bytes() == before


def test_another_network_is_not_continued(folder) -> None:
    with pytest.raises(RunError, match="belongs to another model"):
        fit(job(model=network(norm=True), folder=folder, resume=True))


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "foreign"])
def test_a_damaged_checkpoint_is_refused(damage, folder, tmp_path) -> None:
    whole = (folder / "checkpoint.safetensors").read_bytes()
    path = tmp_path / "checkpoint.safetensors"
    if damage == "foreign":
        from safetensors.torch import save_file

        save_file({"a": torch.zeros(1)}, path)
    else:
        path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"x" * 100}[damage])
    with pytest.raises(RunError, match="start again without --resume"):
        fit(job(folder=tmp_path, resume=True))


def test_a_loss_that_is_no_number_stops_with_the_checkpoint_kept(tmp_path) -> None:

    class Later(nn.Module):
        """Breaks down after some training steps."""

        def __init__(self, net: nn.Module, after: int) -> None:
            super().__init__()
            self.net, self.left = net, after

        def forward(self, x: Tensor) -> Tensor:
            self.left -= self.training
            return self.net(x) * (float("nan") if self.training and self.left < 0 else 1.0)

    model = network()
    with pytest.raises(
        ModelError, match=r"at step 6 of 18, for the 6th time: lower the learning rate \(now 6.25e-05\)"
    ):
        fit(job(model=Later(model, 8), folder=tmp_path))
    assert torch.isfinite(model[1].weight).all()
    again, never = network(5), network()
    steps = []
    fit(job(model=Later(again, 99), folder=tmp_path, resume=True, watch=lambda step, *_: steps.append(step)))
    assert steps[0] == 9
    fit(job(model=Later(never, 99)))
    assert weights(again) == weights(never)


# ---- what is refused


def test_what_cannot_be_trained_is_said_before_it_starts() -> None:
    model = network()
    kept = weights(model)
    for settings, said in [
        ({"plan": replace(TINY, batch_size=97)}, "96 rows, fewer than one batch of 97"),
        ({"threat": Linf(PerRow([0.1] * 96))}, "give it one budget"),
        ({"threat": L2(0.1, mask=PerRow(torch.ones(96, 1, 8, 8) > 0))}, "one mask, not one per row"),
        ({"data": Labelled(TRAIN.x * 255, TRAIN.y)}, "Row 0 holds .*outside the box"),
    ]:
        with pytest.raises(InputError, match=said):
            fit(job(model=model, **settings))
    assert weights(model) == kept


def test_a_mask_for_all_rows_is_kept_in_training() -> None:
    keep = torch.zeros(1, 8, 8, dtype=torch.bool)
    keep[:, :4] = True
    seen = []
    model = network()
    handle = model.register_forward_pre_hook(lambda m, args: seen.append(args[0].detach()) if m.training else None)
    fit(job(model=model, threat=Linf(0.1, mask=Shared(keep)), plan=replace(TINY, epochs=1)))
    handle.remove()
    rows = torch.cat([permutation(96, 0, "epoch 0")])
    assert torch.equal(torch.cat(seen)[:, :, 4:], TRAIN.x[rows][:, :, 4:])
    assert not torch.equal(torch.cat(seen)[:, :, :4], TRAIN.x[rows][:, :, :4])


def test_composites_are_not_trained_with() -> None:
    with pytest.raises((InputError, AttributeError)):
        fit(job(recipes.madry(attack=Union(FGSM(), PGD()))))
