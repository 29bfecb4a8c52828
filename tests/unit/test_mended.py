"""Defects that a review found, each held down by the experiment that showed it."""

import pytest
import torch
from torch import nn

import adamant as am
from adamant.adversary import Status
from adamant.attacks.universal import universal
from adamant.batch import PerRow, Shared
from adamant.engine import Interrupted, run
from adamant.errors import InputError, ModelError
from adamant.evaluation import transfer
from adamant.goals import Untargeted
from adamant.random import Rng
from adamant.referee import referee
from adamant.testing import Affine, Bent
from adamant.threats import Flow, Patch, Recolour, Spatial
from adamant.variety import Jitter, Scale

SHAPE = (3, 8, 6)


@pytest.fixture
def net():
    return Bent(SHAPE, 5).eval()


@pytest.fixture
def x():
    return Rng.of(0, 60).uniform(*SHAPE)


def labels(net, x):
    with torch.no_grad():
        return net(x).argmax(1)


class Seen(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.inputs = net, []

    def forward(self, z):
        self.inputs += [v.clone() for v in z.detach()]
        return self.net(z)


@pytest.mark.parametrize(
    "threat", [Spatial(), Flow(), Recolour(), am.Linf(0.3, mask=Shared(torch.arange(144).view(SHAPE) < 9))]
)
def test_a_search_spends_its_looks_on_entries_that_may_change(net, x, threat):
    watched = Seen(net)
    run(
        am.RandomSearch(steps=100),
        watched,
        x[:1],
        Untargeted(labels(net, x[:1])),
        threat,
        settings=am.Settings(lanes=1),
    )
    different = {v.numpy().tobytes() for v in watched.inputs}
    assert len(different) > (20 if isinstance(threat, (am.Linf, Spatial)) else 60)  # of few entries the corners repeat


def test_under_parameters_a_search_finds_no_less_than_draws(net, x):
    goal = Untargeted(labels(net, x))
    searched = run(am.RandomSearch(steps=200), net, x, goal, Spatial())
    drawn = run(am.Draws(steps=200), net, x, goal, Spatial())
    assert searched.broken.sum() >= 0.8 * drawn.broken.sum()


def test_a_minimal_attack_on_parameters_does_not_depend_on_the_units_of_the_picture(net, x):
    class Scaled(nn.Module):
        def forward(self, z):
            return net(z / 256)

    goal = Untargeted(labels(net, x))
    for threat, wide in ((Flow(), Flow(box=(0.0, 256.0))), (Recolour(), Recolour(box=(0.0, 256.0)))):
        a = run(am.FMN(steps=20), net, x, goal, threat)
        b = run(am.FMN(steps=20), Scaled(), x * 256, goal, wide)
        assert (a.status != b.status).sum() <= 1


@pytest.mark.parametrize("change", [Scale(5), Jitter(0.3)])
@pytest.mark.parametrize("attack", [am.DDN(steps=40), am.FMN(steps=40)])
def test_what_copies_show_never_takes_the_place_of_a_success_that_holds(attack, change):
    net, x = Affine(SHAPE, 5), Rng.of(0, 20).uniform(*SHAPE)
    watched = Seen(net)
    goal = Untargeted(labels(net, x))
    out = run(attack, watched, x, goal, am.L2(), access=am.Varied((change,), n=3))
    with torch.no_grad():  # no row for which something near it was seen that fools alone is let go
        seen = torch.stack(watched.inputs)
        answers = net(seen).argmax(1)
    for i in range(20):
        size = (seen - x[i]).flatten(1).norm(dim=1)
        true = size[(answers != goal.label[i]) & (size < 0.5 * size.median())]
        assert not len(true) or out.broken[i]
    assert (net(out.x_adv[out.broken]).argmax(1) != goal.label[out.broken]).all()
    assert (out.checks[out.broken] > 2).any()  # asked alone on the way, not only at the end


def test_fgm_is_for_norms(net, x):
    for threat in (Patch((3, 3)), am.L0(8)):
        with pytest.raises(InputError, match="FGM works within Linf, L2, L1"):
            am.attack(am.FGM(), net, x, labels(net, x), threat)


@pytest.mark.parametrize("threat", [am.Linf(0.05), Spatial()])
def test_a_ctrl_c_anywhere_hands_over_finished_pictures(net, x, threat):
    def stop(done, rows):
        if done >= 20:
            raise KeyboardInterrupt

    settings = am.Settings(batch_size=10, watch=stop)
    with pytest.raises(Interrupted) as caught:
        run(am.FGSM(), net, x, Untargeted(labels(net, x)), threat, settings=settings)
    assert caught.value.outcome.x_adv.shape == (20, *SHAPE)


@pytest.mark.parametrize("eps", [1 / 255, 2 / 255, 0.003, 8 / 255])
def test_the_referee_forgives_the_rounding_of_honest_arithmetic(net, eps):
    x = (Rng.of(0, 50).uniform(*SHAPE) * 255).round() / 255

    def craft(model, x, goal):
        z = x + eps * torch.where(Rng.of(1, 50).uniform(*SHAPE) < 0.5, -1.0, 1.0)
        return (x + (z - x).clamp(-eps, eps)).clamp(0, 1), torch.ones(50, dtype=torch.bool)

    ruling = referee(craft, net, x, Untargeted(labels(net, x)), am.Linf(eps))
    assert ruling.in_budget.all()
    far = referee(
        lambda m, x, g: (craft(m, x, g)[0] * 0.9, torch.ones(50)), net, x, Untargeted(labels(net, x)), am.Linf(eps)
    )
    assert not far.in_budget.any()


def test_the_referee_says_what_it_cannot_judge(net, x):
    goal = Untargeted(labels(net, x))
    with pytest.raises(InputError, match="cannot be seen from it"):
        referee(lambda m, x, g: (x, x), net, x, goal, Spatial())
    with pytest.raises(InputError, match="returns \\(x_adv, claimed\\)"):
        referee(lambda m, x, g: x, net, x, goal, am.Linf(0.1))
    with pytest.raises(InputError, match="claims \\(3,\\) successes for 60 rows"):
        referee(lambda m, x, g: (x, torch.ones(3)), net, x, goal, am.Linf(0.1))
    ruling = referee(lambda m, x, g: (1 - x, [True] * 60), net, x, goal, Patch((3, 3)))
    assert any("outside of the budget" in line for line in ruling.sentences())  # and not: of the box
    with pytest.raises(ModelError, match="NaN on a clean input"):
        referee(lambda m, x, g: (x, torch.ones(60)), Nothing(), x, goal, am.Linf(0.1))


class Nothing(nn.Module):
    def forward(self, z):
        return z.flatten(1)[:, :5] * torch.nan


def test_transfer_checks_what_run_checks(net, x):
    goal, both = Untargeted(labels(net, x)), ({"a": net}, {"a": net})
    with pytest.raises(InputError, match="outside the box"):
        transfer(am.PGD(), *both, x * 3, goal, am.Linf(0.1))
    with pytest.raises(InputError, match="convert them to floats"):
        transfer(am.PGD(), *both, (x * 255).byte(), goal, am.Linf(0.1))
    with pytest.raises(am.AdamantError, match="needs the gradient"):
        transfer(am.PGD(), *both, x, goal, am.Linf(0.1), access=am.ScoresOnly())
    with pytest.raises(InputError, match="Label 9 of row 0"):
        transfer(am.PGD(), *both, x, Untargeted(goal.label + 9 - goal.label), am.Linf(0.1))
    with pytest.raises(ModelError, match="The model b returns NaN"):
        transfer(am.PGD(), {"a": net}, {"b": Nothing()}, x, goal, am.Linf(0.1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("threat", [am.Linf(0.1), Patch((2, 2)), Spatial()])
def test_inputs_too_coarse_to_judge_are_refused(net, x, dtype, threat):
    with pytest.raises(InputError, match="convert them to float32"):
        run(am.PGD(), net, x.to(dtype), Untargeted(torch.zeros(60, dtype=torch.long)), threat)


def test_a_bad_label_is_named_by_its_row_before_any_work(net, x):
    label = labels(net, x)
    label[47] = 9
    done = []
    settings = am.Settings(batch_size=10, watch=lambda i, n: done.append(i))
    with pytest.raises(InputError, match="Label 9 of row 47"):
        run(am.FGSM(), net, x, Untargeted(label), am.Linf(0.1), settings=settings)
    assert not done


def test_each_target_tries_every_class_but_the_label_though_some_are_ruled_out():
    class Ruled(nn.Module):
        def forward(self, z):
            a = z.flatten(1).sum(1)
            return torch.stack([a * 0 + 9, a * 0 - torch.inf, a], 1)  # class 2 falls to a large enough sum

    x = torch.full((4, 1, 4, 4), 0.4)
    out = run(
        am.EachTarget(am.PGD(steps=10), 2), Ruled(), x, Untargeted(torch.zeros(4, dtype=torch.long)), am.Linf(0.3)
    )
    assert out.broken.all()


def test_settings_that_make_no_sense_are_refused(net, x):
    goal = Untargeted(labels(net, x))
    for wrong in ({"lanes": 0}, {"batch_size": -1}, {"max_looks": -3}):
        with pytest.raises(InputError, match="give a whole number from 1 on"):
            am.Settings(**wrong)
    with pytest.raises(InputError, match="EachTarget needs n of at least 1"):
        run(am.EachTarget(am.PGD(), 0), net, x, goal, am.Linf(0.1))
    with pytest.raises(InputError, match="Union needs at least one"):
        am.Union()
    for make in (
        lambda: Flow(grid=0), lambda: Spatial(degrees=float("nan")), lambda: Recolour(box=(-torch.inf, torch.inf)),
        lambda: Patch((2, 2), box=(-torch.inf, torch.inf)),
    ):  # fmt: skip
        with pytest.raises(InputError):
            make()
    for threat in (am.L2(), am.L2(PerRow([1.0] * 60))):
        with pytest.raises(InputError, match="one finite budget"):
            universal(net, x, goal, threat)
    with pytest.raises(ModelError, match="not a torch module"):
        run(am.PGD(), lambda z: z, x, goal, Spatial())
    with torch.inference_mode():
        inside = x * 1
    with pytest.raises(InputError, match="inference_mode"):
        run(am.PGD(), net, inside, goal, am.Linf(0.1))


def test_wrong_already_under_parameters_is_judged_on_the_picture_itself():
    x = Rng.of(0, 30).uniform(1, 9, 13)

    class Strict(nn.Module):
        """Right on the pictures as they are, bit for bit, and nowhere else."""

        def forward(self, z):
            same = torch.stack([(z == c).flatten(1).all(1) for c in x]).any(0)
            return torch.stack([same.float(), 1 - same.float()], 1) + 0 * z.flatten(1).sum(1, keepdim=True)

    out = run(am.Draws(steps=2), Strict(), x, Untargeted(torch.zeros(30, dtype=torch.long)), Spatial())
    assert (out.status == Status.BROKEN).all()


def test_labels_alone_give_no_loss(net, x):
    out = run(am.Draws(steps=2), net, x, Untargeted(labels(net, x)), am.Linf(0.001), access=am.LabelsOnly())
    assert out.loss[out.status == Status.ROBUST].isnan().all()
