"""The engine beside the conformance suite: memory, interruption, precision, devices, and what it refuses."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import adamant as am
from adamant.adversary import Status
from adamant.calling import untouched
from adamant.engine import Interrupted, perturb, run
from adamant.errors import AccessError, InputError, ModelError
from adamant.goals import Targeted, Untargeted
from adamant.random import Rng
from adamant.testing import Affine, Bent

SHAPE, CLASSES = (1, 4, 4), 4


@pytest.fixture
def model():
    return Bent(SHAPE, CLASSES).eval()


@pytest.fixture
def x():
    return Rng.of(0, 40).uniform(*SHAPE)


def goal_of(model, x):
    with torch.no_grad():
        return Untargeted(model(x).argmax(1))


def same(a, b):
    return all(torch.equal(v.nan_to_num(-9), getattr(b, k).nan_to_num(-9)) for k, v in vars(a).items())


class Hungry(nn.Module):
    """Runs out of memory above a number of rows."""

    def __init__(self, net, most, error):
        super().__init__()
        self.net, self.most, self.error, self.largest = net, most, error, 0

    def forward(self, z):
        if len(z) > self.most:
            raise self.error
        self.largest = max(self.largest, len(z))
        return self.net(z)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("not enough memory: you tried to allocate"),
        MemoryError(),
    ],
)
def test_the_batch_is_halved_when_memory_runs_out(model, x, error):
    goal, attack = goal_of(model, x), am.PGD(steps=5)
    want = run(attack, model, x, goal, am.Linf(0.1))
    hungry = Hungry(model, 16, error)
    got = run(attack, hungry, x, goal, am.Linf(0.1), settings=am.Settings(batch_size=40))
    assert same(want, got)
    assert hungry.largest == 16


def test_memory_that_never_suffices_is_an_error(model, x):
    with pytest.raises(MemoryError):
        run(am.FGSM(), Hungry(model, 0, MemoryError()), x, goal_of(model, x), am.Linf(0.1))


def test_an_interruption_keeps_the_finished_batches(model, x):
    goal = goal_of(model, x)
    want = run(am.PGD(steps=5), model, x, goal, am.Linf(0.1))

    def stop(done, rows):
        if done >= 20:
            raise KeyboardInterrupt

    calls = []

    class Stopped(nn.Module):
        def forward(self, z):
            calls.append(len(z))
            if len(calls) > 15:  # in the midst of the third batch
                raise KeyboardInterrupt
            return model(z)

    with pytest.raises(Interrupted) as caught:
        run(am.PGD(steps=5), Stopped(), x, goal, am.Linf(0.1), settings=am.Settings(batch_size=10))
    kept = caught.value.outcome
    assert kept is not None
    assert 0 < len(kept.status) < 40
    assert torch.equal(kept.x_adv, want.x_adv[: len(kept.status)])


def test_autocast_searches_low_and_judges_high(x):
    """A network that is fooled in bfloat16 only: nothing may be called broken."""

    class Coarse(nn.Module):
        def forward(self, z):
            steady = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(len(z), -1)
            low = torch.is_autocast_enabled("cpu")
            moved = (z - x[: len(z)]).abs().flatten(1).amax(1, keepdim=True) > 0.01 if len(z) == len(x) else None
            wrong = torch.tensor([0.0, 1.0, 0.0, 0.0]).expand(len(z), -1)
            out = torch.where(moved, wrong, steady) if low and moved is not None else steady
            return out + 0 * z.flatten(1).sum(1, keepdim=True)

    x = x[:16]
    label = torch.zeros(16, dtype=torch.long)
    settings = am.Settings(autocast=True)
    out = run(am.RandomSearch(steps=5), Coarse(), x, Untargeted(label), am.Linf(0.1), settings=settings)
    assert not out.broken.any()
    assert out.checks.max() > 1  # each was taken for a success, asked once more, and turned down


def test_channels_last_reaches_the_model_and_changes_no_verdict():
    torch_shape = (3, 8, 8)
    x = Rng.of(1, 16).uniform(*torch_shape)
    conv = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), Affine((8 * 36,), CLASSES)).eval()
    seen = []

    def watch(module, args):
        if len(args[0]) > 1:  # a row that is verified alone comes as it is
            seen.append(args[0].is_contiguous(memory_format=torch.channels_last))

    conv.register_forward_pre_hook(watch)
    goal = goal_of(conv, x)
    plain = run(am.PGD(steps=5), conv, x, goal, am.Linf(0.02))
    seen.clear()
    last = run(am.PGD(steps=5), conv, x, goal, am.Linf(0.02), settings=am.Settings(channels_last=True, lanes=16))
    assert seen
    assert all(seen)
    assert (plain.status == last.status).float().mean() > 0.9


def test_perturb_costs_exactly_its_steps_and_judges_nothing(model, x):
    counts = {"f": 0, "b": 0}

    def count(module, args, out):
        counts["f"] += 1
        if out.requires_grad:
            out.register_hook(lambda g: counts.__setitem__("b", counts["b"] + 1))

    handle = model.register_forward_hook(count)
    with untouched(model):
        z = perturb(
            am.PGD(steps=7), model, x, Untargeted(torch.zeros(40, dtype=torch.long)), am.Linf(0.1), rng=Rng.of(0, 40)
        )
    handle.remove()
    assert counts == {"f": 7, "b": 7}
    assert am.Linf(0.1).contains(z, x).all()
    assert not torch.equal(z, x)


def test_the_books_of_the_design(model, x):
    """FGSM 2 forwards + 1 backward, PGD(40) 41 + 40, for rows that are not broken."""
    goal, tiny = goal_of(model, x), am.Linf(1e-6)
    for attack, forwards, backwards in ((am.FGSM(), 2, 1), (am.PGD(steps=40), 41, 40)):
        out = run(attack, model, x, goal, tiny)
        stood = out.status == Status.ROBUST
        assert stood.any()
        assert (out.forwards[stood] == forwards).all()
        assert (out.backwards[stood] == backwards).all()


def test_out_of_budget_is_said(model, x):
    out = run(am.PGD(steps=40), model, x, goal_of(model, x), am.Linf(1e-6), settings=am.Settings(max_looks=10))
    assert (out.status == Status.OUT_OF_BUDGET).all()
    assert (out.forwards == 10).all()
    assert out.robust_accuracy == 1.0


def test_success_rate_counts_among_the_right(model, x):
    goal = goal_of(model, x)
    half = replace(goal, label=torch.where(torch.arange(40) % 2 == 0, goal.label, (goal.label + 1) % CLASSES))
    out = run(am.PGD(steps=20), model, x, half, am.Linf(0.5))
    assert (out.status == Status.WRONG_ALREADY).sum() == 20
    assert out.success_rate == int(out.broken.sum()) / 20


def test_a_frozen_model_is_attacked_through_its_input(model, x):
    model.requires_grad_(False)
    assert run(am.PGD(steps=10), model, x, goal_of(model, x), am.Linf(0.5)).broken.any()


def test_it_works_inside_no_grad(model, x):
    """Foolbox and ART are silently useless there (foolbox #242, ART #498)."""
    goal = goal_of(model, x)
    want = run(am.PGD(steps=5), model, x, goal, am.Linf(0.1))
    with torch.no_grad():
        assert same(want, run(am.PGD(steps=5), model, x, goal, am.Linf(0.1)))


def test_the_model_is_put_back_after_an_error(x):
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.part, self.calls = Bent(SHAPE, CLASSES), 0

        def forward(self, z):
            self.calls += 1
            if self.calls > 2:
                raise ValueError("out of order")
            return self.part(z)

    model = Fails().train()
    model.part.norm.eval()
    random = torch.get_rng_state()
    label = torch.zeros(40, dtype=torch.long)
    with pytest.raises(ModelError, match=r"raised ValueError on an input of shape \(16, 1, 4, 4\).*out of order"):
        run(am.PGD(steps=5), model, x, Untargeted(label), am.Linf(0.1))
    assert model.training
    assert not model.part.norm.training
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(random, torch.get_rng_state())


class Answers(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, z):
        return self.answer(z)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (lambda z: z.flatten(1).sum(1), "must return logits"),
        (lambda z: z.flatten(1)[:3], "must return logits"),
        (lambda z: {"logits": z}, "must return logits"),
        (lambda z: z.flatten(1).sum(1, keepdim=True), "a logit per class"),
        (lambda z: z.flatten(1) * torch.nan, "NaN on a clean input"),
        (lambda z: z.flatten(1).detach(), "No gradient reaches the input"),
    ],
)
def test_a_model_that_answers_oddly_is_refused(x, answer, sentence):
    with pytest.raises(ModelError, match=sentence):
        run(am.PGD(steps=2), Answers(answer), x, Untargeted(torch.zeros(40, dtype=torch.long)), am.Linf(0.1))


def test_what_cannot_be_attacked_is_refused(model, x):
    label = torch.zeros(40, dtype=torch.long)
    goal, threat = Untargeted(label), am.Linf(0.1)
    with pytest.raises(InputError, match="non-empty batch"):
        run(am.FGSM(), model, x[:0], goal, threat)
    with pytest.raises(InputError, match="Row 3 holds 2, outside the box"):
        run(am.FGSM(), model, x.index_fill(0, torch.tensor([3]), 2.0), goal, threat)
    with pytest.raises(InputError, match="convert them to floats"):
        run(am.FGSM(), model, (x * 255).byte(), goal, threat)
    with pytest.raises(InputError, match="Label 9 of row 0"):
        run(am.FGSM(), model, x, Untargeted(label + 9), threat)
    with pytest.raises(InputError, match="is its label"):
        run(am.FGSM(), model, x, Targeted(label, label), threat)
    with pytest.raises(AccessError, match="PGD needs the gradient and LabelsOnly gives the predicted label"):
        run(am.PGD(), model, x, goal, threat, access=am.LabelsOnly())
    with pytest.raises(AccessError, match="RandomSearch needs the scores"):
        run(am.RandomSearch(), model, x, goal, threat, access=am.LabelsOnly())
    with pytest.raises(ModelError, match="not a torch module"):
        run(am.FGSM(), lambda z: z, x, goal, threat)
    two = Bent(SHAPE, 2).eval()
    with pytest.raises(InputError, match="DLR needs 3 classes"):
        run(am.PGD(loss=am.DLR()), two, x, goal_of(two, x), threat)


def test_budgets_per_row_travel_with_their_rows(model, x):
    from adamant.batch import PerRow

    eps = torch.linspace(0.01, 0.3, 40)
    goal = goal_of(model, x)
    out = run(am.PGD(steps=10), model, x, goal, am.Linf(PerRow(eps)), settings=am.Settings(batch_size=7))
    assert (out.size <= eps.double() + 1e-9).all()
    one = run(
        am.PGD(steps=10),
        model,
        x[30:31],
        Untargeted(goal.label[30:31]),
        am.Linf(float(eps[30].double())),
        rng=Rng.of(0, torch.tensor([30])),
    )
    assert torch.equal(one.x_adv[0], out.x_adv[30])


@pytest.mark.parametrize("threat", [am.Linf(0.1), am.Spatial()])
def test_inputs_that_want_gradients_are_attacked_like_others(threat):
    model, x = Bent((1, 4, 4), 3, seed=5, dtype=torch.float32).eval(), torch.full((4, 1, 4, 4), 0.5)
    goal = Untargeted(model(x).argmax(1))
    wants = x.clone().requires_grad_(True)
    out, same = (run(am.PGD(steps=3), model, v, goal, threat) for v in (wants, x))
    assert torch.equal(out.x_adv, same.x_adv)
    assert not out.x_adv.requires_grad
    assert wants.grad is None


def test_a_model_may_answer_in_wider_numbers_than_it_is_asked_in():
    class Wide(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, z):
            return self.net(z).double()

    model, x = Bent((6,), 3, seed=5, dtype=torch.float32).eval(), Rng.of(7, 9).uniform(6)
    goal = Untargeted(model(x).argmax(1))
    wide, narrow = (run(am.PGD(steps=5), m, x, goal, am.Linf(0.1)) for m in (Wide(model), model))
    assert torch.equal(wide.status, narrow.status)
    assert wide.x_adv.dtype == x.dtype
