"""The machine room: returns, stops, frozen parts, probes, clipping, extra rows, joint views, layouts and precision."""

import itertools
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from adamant.attacks import FGSM, PGD
from adamant.calling import untouched
from adamant.data import load_data
from adamant.errors import InputError, ModelError, RunError
from adamant.random import Rng, permutation
from adamant.runtime.average import EMA
from adamant.runtime.checkpoint import Progress
from adamant.runtime.knobs import Constant
from adamant.runtime.optimizers import SGD
from adamant.shards import Shard
from adamant.threats import Linf, Spatial
from adamant.training import recipes
from adamant.training.fit import fit
from adamant.training.outer import CE, Sum, Times
from adamant.training.parts import Batch
from adamant.training.plan import Plan
from adamant.training.recipes import Recipe
from adamant.training.step import Forge, Job, placed, rows_of
from adamant.training.views import Views

DIGITS = load_data("digits", split="train")
TRAIN, VALID = DIGITS.take(torch.arange(96)), DIGITS.take(torch.arange(96, 128))
MORE = DIGITS.take(torch.arange(200, 240))
QUICK = PGD(steps=2, rate=0.6)
MADRY = recipes.madry(attack=QUICK)
TINY = Plan(epochs=2, batch_size=16, select=FGSM(), save_every=0.0, select_rows=32, optimizer=SGD(0.05))
HALF = replace(TINY, extra=0.5)


@dataclass(frozen=True)
class Labelled:
    x: Tensor
    y: Tensor


class Net(nn.Module):
    def __init__(self, seed: int = 0, *, drop: float = 0.0) -> None:
        super().__init__()
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(4))
        self.drop, self.head = nn.Dropout(drop), nn.Linear(32, 10)
        torch.set_rng_state(state)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.body(x).flatten(1)))


def job(recipe: Recipe = MADRY, model: nn.Module | None = None, **settings) -> Job:
    made = {"data": TRAIN, "validation": VALID, "threat": Linf(0.1), "plan": TINY, **settings}
    return Job(model=model or Net(), recipe=recipe, **made)


def weights(model: nn.Module) -> bytes:
    return b"".join(v.contiguous().numpy().tobytes() for v in model.state_dict().values())


def state(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


# ---- going back


class Fragile(Net):
    """Answers with what is no number once its weights have gone far: a function of the weights, so that it repeats."""

    far = 0.35

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x)
        moved = (self.head.weight.detach() - Net().head.weight.detach()).norm()
        return z * torch.where(moved > self.far, torch.nan, 1.0) if self.training else z


def test_a_loss_that_is_no_number_sends_the_run_back_with_half_the_rate() -> None:
    said = []
    report = fit(job(model=Fragile(), watch=lambda step, steps, text: said.append((step, text))))
    backs = [e for e in report.events if e["why"].startswith("the loss")]
    assert 1 <= len(backs) <= 5
    assert all(e["back_to"] % 6 == 0 and e["back_to"] <= e["step"] for e in backs)
    assert report.steps == 12
    assert any(text.startswith(f"back from step {backs[0]['step']} to") for _, text in said)
    schedule = fit(job()).epochs[-1]["rate"]
    assert report.epochs[-1]["rate"] == pytest.approx(schedule / 2 ** len(backs))


def test_the_course_after_a_return_is_that_of_half_the_rate() -> None:
    """From its good state on, the run is the run that it would have been with half the rate from there."""
    model, other = Fragile(), Net()
    report = fit(job(model=model, plan=replace(TINY, epochs=1, optimizer=SGD(0.2))))
    n = len(report.events)
    assert n >= 1
    assert all(e["back_to"] == 0 for e in report.events)
    fit(job(model=other, plan=replace(TINY, epochs=1, optimizer=SGD(0.2 / 2**n))))
    assert weights(model) == weights(other)


def test_a_run_that_never_comes_well_ends_after_five_returns() -> None:
    class Hopeless(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (torch.nan if self.training else 1.0)

    said = []
    with pytest.raises(ModelError, match=r"at step 0 of 12, for the 6th time: lower the learning rate \(now 0.0015625"):
        fit(job(model=Hopeless(), watch=lambda step, steps, text: said.append(text)))
    assert sum(t.startswith("back") for t in said) == 5


class Steep(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        return z.clone()

    @staticmethod
    def backward(ctx, g):
        return g * torch.inf


def test_a_slope_that_is_no_number_is_not_followed() -> None:
    class Cliff(Net):
        left = 8

        def forward(self, x: Tensor) -> Tensor:
            z = super().forward(x)
            if self.training:
                self.left -= 1
            return Steep.apply(z) if self.training and self.left == 0 else z

    report = fit(job(model=Cliff()))
    assert [(e["step"], e["back_to"]) for e in report.events] == [(7, 6)]


def test_statistics_that_are_no_numbers_at_the_end_of_an_epoch_are_not_validated(monkeypatch) -> None:
    true, left = Forge.step, [6]

    def step(self: Forge, progress: Progress) -> float:
        loss = true(self, progress)
        left[0] -= 1
        if left[0] == 0:
            self.job.model.body[1].running_var.fill_(torch.inf)
        return loss

    monkeypatch.setattr(Forge, "step", step)
    model, other = Net(), Net()
    report = fit(job(model=model, plan=replace(TINY, epochs=1)))
    assert [(e["step"], e["back_to"]) for e in report.events] == [(5, 0)]
    fit(job(model=other, plan=replace(TINY, epochs=1, optimizer=SGD(0.025))))
    assert weights(model) == weights(other)


@pytest.mark.parametrize("stop", [0, 1, 3, 5])
def test_resuming_after_a_return_is_bit_for_bit(stop, tmp_path) -> None:
    recipe = recipes.augmented(keep=2, average=EMA(0.9))

    def trained(folder: Path | None, *, kill: int = 0, resume: bool = False):
        model, count = Fragile(), [0]
        model.far = 0.5

        def watch(step: int, steps: int, text: str) -> None:
            if text.startswith("loss"):
                count[0] += 1
                if count[0] == kill:
                    raise KeyboardInterrupt

        plan = replace(TINY, optimizer=SGD(0.1))
        report = fit(job(recipe, model, plan=plan, folder=folder, resume=resume, watch=watch))
        return weights(model), [{k: v for k, v in e.items() if k != "seconds"} for e in report.epochs], report.events

    whole = trained(None)
    assert whole[2]
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, kill=whole[2][0]["step"] + stop)
    assert trained(tmp_path, resume=True) == whole


def test_a_collapse_makes_the_attack_stronger_and_is_resumed(tmp_path) -> None:
    @dataclass(frozen=True)
    class Alarm:
        rows: int = 16

        def interval(self, cost):
            return 4

        def probe(self, model, x, y, threat, rng):
            return (float((model.head.weight.detach() - Net().head.weight.detach()).norm()), 0.0)

        def alarm(self, probe, best):
            return "it went far" if best and probe[0] > best else ""

    recipe = replace(recipes.fast(), guard=Alarm())

    def trained(folder: Path | None, *, kill: int = 0, resume: bool = False):
        model, count = Net(), [0]

        def watch(step: int, steps: int, text: str) -> None:
            count[0] += text.startswith("loss")
            if kill and count[0] == kill:
                raise KeyboardInterrupt

        report = fit(job(recipe, model, folder=folder, resume=resume, watch=watch))
        return weights(model), report.events

    whole = trained(None)  # the end of the epoch, at step 6, is not looked at, and so no good place
    assert len(whole[1]) == 5
    assert all("made stronger" in e["why"] and e["back_to"] == 4 and e["step"] == 8 for e in whole[1])
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, kill=14)
    assert trained(tmp_path, resume=True) == whole


def test_where_a_guard_alarms_and_nothing_can_be_made_stronger_is_no_good_place(monkeypatch) -> None:
    @dataclass(frozen=True)
    class Alarm:
        rows: int = 16

        def interval(self, cost):
            return 4

        def probe(self, model, x, y, threat, rng):
            probes.append(1)
            return (0.5, 0.5)

        def alarm(self, probe, best):
            return "it went far" if len(probes) == 2 else ""

    def step(self: Forge, progress: Progress) -> float:
        loss = true(self, progress)
        return torch.nan if progress.step == 9 and progress.rate == 1 else loss

    true, probes = Forge.step, []
    monkeypatch.setattr(Forge, "step", step)
    report = fit(job(replace(recipes.standard(), guard=Alarm())))
    assert [(e["step"], e["back_to"]) for e in report.events] == [(9, 4)]


# ---- what stays as it is


def test_frozen_parts_keep_weights_and_statistics() -> None:
    model = Net()
    before = state(model)
    fit(job(model=model, plan=replace(TINY, freeze=("body.*",), l2=0.1)))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("body"), name
    assert all(p.requires_grad for p in model.parameters())


def test_freezing_one_parameter_leaves_its_neighbours_free() -> None:
    model = Net()
    before = state(model)
    fit(job(model=model, plan=replace(TINY, freeze=("*.bias",))))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.endswith("bias"), name


def test_a_probe_trains_the_last_layer_alone_and_then_everything() -> None:
    model, seen = Net(), []
    before = state(model)

    def watch(step: int, steps: int, text: str) -> None:
        if text.startswith("loss"):
            seen.append({k: torch.equal(v, before[k]) for k, v in model.state_dict().items()})

    fit(job(model=model, plan=replace(TINY, probe=0.5), watch=watch))
    for at, same in enumerate(seen):
        assert not same["head.weight"]
        assert all(same[k] for k in same if k.startswith("body")) == (at < 6)
        assert not (at >= 6 and same["body.1.running_mean"])


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"freeze": ("nothing.*",)}, "Nothing in the model is named 'nothing"),
        ({"freeze": ("*",)}, "no parameter that may be trained"),
        ({"freeze": ("head",), "probe": 0.5}, "it is frozen: set probe to 0"),
        ({"probe": 1.0}, "Probe is a share"),
        ({"clip": 0.0}, "Clip is the longest gradient"),
        ({"extra": 0.5}, "the job has none"),
    ],
    ids=str,
)
def test_a_plan_that_the_model_does_not_fit(plan, said) -> None:
    model = Net()
    before = weights(model)
    with pytest.raises(InputError, match=said):
        fit(job(model=model, plan=replace(TINY, **plan)))
    assert weights(model) == before
    assert all(p.requires_grad for p in model.parameters())


def test_a_model_without_a_linear_layer_is_not_probed() -> None:
    model = nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten())
    with pytest.raises(InputError, match="the model has none: set probe to 0"):
        fit(job(model=model, plan=replace(TINY, probe=0.2)))


# ---- the step


@pytest.mark.parametrize("clip", [0.05, 1e9])
def test_no_step_follows_a_gradient_longer_than_clip(clip) -> None:
    plan = replace(TINY, clip=clip, optimizer=SGD(1.0, momentum=0.0), shape=Constant())
    model = Net()

    def now(*_: object) -> None:
        at.append(torch.cat([p.detach().flatten() for p in model.parameters()]))

    at: list[Tensor] = []
    now()
    fit(job(model=model, plan=plan, watch=now))
    longest = max(float((b - a).norm()) for a, b in itertools.pairwise(at))
    assert longest <= 0.05 * 1.001 if clip == 0.05 else longest > 0.05
    if clip == 0.05:
        assert longest == pytest.approx(0.05, rel=1e-3)


def test_extra_rows_fill_their_share_of_every_batch() -> None:
    plan = replace(TINY, extra=0.25)
    made = job(plan=plan, extra=MORE)
    assert made.per_epoch == 96 // 12
    drawn = torch.stack([rows_of(made, step) for step in range(16)])
    own, more = drawn[:, :12], drawn[:, 12:]
    assert torch.equal(own[:8].flatten(), permutation(96, 0, "epoch 0"))
    assert int(more.min()) >= 96
    assert int(more.max()) < 136
    assert len(more.unique()) > 20
    assert torch.equal(drawn, torch.stack([rows_of(job(plan=plan, extra=MORE), step) for step in range(16)]))
    assert not torch.equal(more, torch.stack([rows_of(replace(made, seed=1), step) for step in range(16)])[:, 12:])
    x, y = placed(made, drawn[3])
    assert torch.equal(x[12:], MORE.x[more[3] - 96])
    assert torch.equal(y, torch.cat([TRAIN.y[own[3]], MORE.y[more[3] - 96]]))
    fit(made)


def test_a_pool_remembers_extra_rows_too(tmp_path) -> None:
    made = job(recipes.augmented(), plan=replace(TINY, extra=0.5, epochs=1), extra=MORE, folder=tmp_path)
    fit(made)
    held = load_file(tmp_path / "checkpoint.safetensors")
    assert held["memory/pool"].shape == (1, 136, 1, 8, 8)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"extra": MORE}, "the plan takes none of them"),
        ({"extra": Labelled(MORE.x[..., :4], MORE.y), "plan": HALF}, "must be alike"),
        ({"extra": Labelled(MORE.x, MORE.y + 9), "plan": HALF}, "outside 0..9"),
        ({"extra": Labelled(MORE.x * 9, MORE.y), "plan": HALF}, "outside the box"),
        ({"validation": Labelled(VALID.x * 9, VALID.y)}, "outside the box"),
        ({"validation": Labelled(VALID.x[:0], VALID.y[:0])}, "no validation rows"),
        ({"data": Labelled(TRAIN.x, TRAIN.y[:-1])}, "must be alike and labelled"),
        ({"data": Labelled(TRAIN.x, TRAIN.y - 1)}, "belong to the extra rows"),
        ({"data": Labelled(TRAIN.x, TRAIN.y + 1)}, "outside 0..9"),
        (
            {"extra": Labelled(MORE.x, torch.arange(40).where(torch.arange(40) == 12, -1)), "plan": HALF},
            "12 of row 12",
        ),
        ({"threat": Spatial()}, "Spatial changes parameters of the picture: .* not trained with"),
    ],
    ids=range(11),
)
def test_rows_that_do_not_fit_are_refused_before_the_first_step(settings, said) -> None:
    steps = []
    with pytest.raises(InputError, match=said):
        fit(job(watch=lambda step, *_: steps.append(step), **settings))
    assert steps == []


def test_joint_views_share_the_statistics_of_one_batch() -> None:
    """The first step against plain torch: both views in one batch, one set of statistics, one gradient."""
    recipe = replace(recipes.mixed(attack=QUICK), joint=True)
    plan = replace(TINY, optimizer=SGD(0.1, momentum=0.0), shape=Constant())
    seen: list[dict[str, Tensor]] = []
    model = Net()
    fit(job(recipe, model, plan=plan, watch=lambda *_: seen.append(state(model))))
    other, rows = Net(), permutation(96, 0, "epoch 0")[:16]
    x, y = TRAIN.x[rows], TRAIN.y[rows]
    other.eval()
    with untouched(other):
        z = recipe.inner(other, Batch(x, y, rows, Rng.of(0, rows).fold("step").fold(0)), Linf(0.1), {})["adv"]
    other.train()
    both = other(torch.cat([x, z]))
    loss = F.cross_entropy(both[:16], y) + F.cross_entropy(both[16:], y)
    loss.backward()
    with torch.no_grad():
        for p in other.parameters():
            p -= 0.1 * p.grad
    for name, value in other.state_dict().items():
        assert torch.allclose(seen[0][name], value, atol=1e-6), name
    assert int(seen[0]["body.1.num_batches_tracked"]) == 1
    apart: list[dict[str, Tensor]] = []
    model = Net()
    fit(job(replace(recipe, joint=False), model, plan=plan, watch=lambda *_: apart.append(state(model))))
    assert int(apart[0]["body.1.num_batches_tracked"]) == 2
    assert not torch.allclose(apart[0]["body.0.weight"], seen[0]["body.0.weight"], atol=1e-6)


# ---- layout, precision, graphs


def test_channels_last_changes_nothing_but_rounding(tmp_path) -> None:
    model, other, layouts = Net(), Net(), set()
    model.body[0].register_forward_pre_hook(
        lambda m, args: layouts.add(args[0].expand(-1, 2, -1, -1).contiguous().stride() and m.weight.stride())
    )
    plan = replace(TINY, epochs=1)
    fit(job(model=model, plan=replace(plan, channels_last=True), folder=tmp_path))
    fit(job(model=other, plan=plan))
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-3), name
    assert all(v.is_contiguous() for v in model.state_dict().values())


def test_channels_last_hands_the_model_pictures_in_that_layout() -> None:
    class Coloured(Net):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.is_contiguous(memory_format=torch.channels_last))
            return super().forward(x.mean(1, keepdim=True))

    seen: list[bool] = []
    data = Labelled(TRAIN.x.repeat(1, 3, 1, 1), TRAIN.y)
    made = job(model=Coloured(), data=data, validation=data, plan=replace(TINY, epochs=1, channels_last=True))
    progress, forge = Progress(), Forge.of(made, Shard())
    seen.clear()
    forge.step(progress)
    assert len(seen) == 3
    assert all(seen)


@pytest.mark.parametrize("stop", [4, 7])
def test_channels_last_is_resumed_bit_for_bit(stop, tmp_path) -> None:
    plan = replace(TINY, channels_last=True, clip=0.5)

    def watch(step: int, *_: object) -> None:
        if step == stop:
            raise KeyboardInterrupt

    whole, model = Net(), Net(7)
    fit(job(model=whole, plan=plan))
    with pytest.raises(KeyboardInterrupt):
        fit(job(model=Net(), plan=plan, folder=tmp_path, watch=watch))
    fit(job(model=model, plan=plan, folder=tmp_path, resume=True))
    assert weights(model) == weights(whole)


def test_autocast_lowers_the_passes_and_nothing_else() -> None:
    low: list[torch.dtype] = []
    inputs: list[torch.dtype] = []
    kinds: list[torch.dtype] = []

    @dataclass(frozen=True)
    class Watch:
        views: tuple[str, ...] = ("adv",)

        def __call__(self, v: Views) -> Tensor:
            logits = v.logits("adv")
            kinds.append(logits.dtype)
            inputs.append(v.inputs["adv"].dtype)
            size = (v.inputs["adv"] - v.inputs["clean"]).abs().flatten(1).amax(1)
            assert bool((size <= 0.1).all())
            return F.cross_entropy(logits, v.label, reduction="none")

        def __str__(self) -> str:
            return "watch"

    model = Net()
    made = job(replace(MADRY, outer=Watch()), model, plan=replace(TINY, epochs=1, autocast=True))
    forge = Forge.of(made, Shard())
    model.body[0].register_forward_hook(lambda m, args, out: (low.append(out.dtype), None)[1])
    loss = forge.step(Progress())
    assert set(low) == {torch.bfloat16}
    assert set(kinds) == set(inputs) == {torch.float32}
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.parameters())
    assert all(v.dtype == torch.float32 for v in forge.optimizer.state_dict()["state"][0].values())
    assert loss == pytest.approx(Forge.of(job(), Shard()).step(Progress()), rel=0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_training_is_the_same_up_to_rounding() -> None:
    plan = replace(TINY, epochs=1)
    model, other = Net(), Net()
    try:
        fit(job(model=model, plan=replace(plan, compile=True)))
    except InputError as error:
        pytest.skip(str(error))
    finally:
        torch.compiler.reset()
    fit(job(model=other, plan=plan))
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-3), name


def test_without_a_compiler_there_is_a_sentence(monkeypatch) -> None:
    def broken(model: nn.Module) -> nn.Module:
        raise RuntimeError("no C++ compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(InputError, match=r"cannot be compiled here \(no C\+\+ compiler\): train without compile"):
        fit(job(plan=replace(TINY, compile=True)))


def test_what_differentiates_twice_is_not_compiled() -> None:
    @dataclass(frozen=True)
    class Sloped:
        views: tuple[str, ...] = ("clean",)
        slopes: tuple[str, ...] = ("clean",)

        def __call__(self, v: Views) -> Tensor:
            return v.slope("clean", CE("clean")(v)).flatten(1).norm(dim=1)

        def __str__(self) -> str:
            return "slope"

    recipe = replace(recipes.standard(), outer=Sum(CE("clean"), Times(0.1, Sloped())))
    with pytest.raises(InputError, match="differentiates twice, which compiled models cannot"):
        fit(job(recipe, plan=replace(TINY, compile=True)))
    fit(job(recipe, plan=replace(TINY, epochs=1)))


# ---- the log


def test_the_log_has_a_line_for_each_epoch_and_event(tmp_path) -> None:
    read = []
    report = fit(job(model=Fragile(), folder=tmp_path, readers=(read.append,)))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert read == lines
    assert [e["what"] for e in lines if e["what"] != "back"] == ["start", "epoch", "epoch", "end"]
    assert [(e["step"], e["back_to"]) for e in lines if e["what"] == "back"] == [
        (e["step"], e["back_to"]) for e in report.events
    ]
    assert [e["robust"] for e in lines if e["what"] == "epoch"] == [e["robust"] for e in report.epochs]
    assert lines[0]["steps"] == 12
    assert [e["seconds"] for e in lines] == sorted(e["seconds"] for e in lines)


def test_a_resumed_run_goes_on_in_the_log_without_lines_twice(tmp_path) -> None:
    plan = replace(TINY, epochs=3, save_every=1e9)

    def watch(step: int, steps: int, text: str) -> None:
        if step == 12 and text.startswith("epoch"):
            raise KeyboardInterrupt  # after the line of the epoch, before its checkpoint

    with pytest.raises(KeyboardInterrupt):
        fit(job(plan=plan, folder=tmp_path, watch=watch))
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"what": "epo')  # cut in two
    fit(job(plan=plan, folder=tmp_path, resume=True))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [e["what"] for e in lines] == ["start", "epoch", "resumed", "epoch", "epoch", "end"]
    assert [e["epoch"] for e in lines if e["what"] == "epoch"] == [1, 2, 3]
    assert lines[2]["step"] == 6


def test_a_full_disk_is_a_sentence_and_the_checkpoint_stays(tmp_path, monkeypatch) -> None:
    fit(job(folder=tmp_path, plan=replace(TINY, epochs=1)))
    before = (tmp_path / "checkpoint.safetensors").read_bytes()

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"cannot be written: No space left on device"):
        fit(job(folder=tmp_path))
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert not list(tmp_path.glob(".*tmp"))
