"""AdvGAN: each loss on numbers, each known trap, and a generator that beats noise by far on rows it never saw."""

import math
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from tests.unit.generation.victims import EPS, digits, material, victim
from torch import nn

import adamant as am
from adamant.batch import PerRow
from adamant.cli import words
from adamant.engine import run
from adamant.errors import InputError
from adamant.generation import files
from adamant.generation.advgan import AdvGAN, Distilled, Small
from adamant.generation.base import Game, Outlined, Turn
from adamant.generation.fit import Match, Play, fit
from adamant.generation.latent import unrestricted
from adamant.generation.victim import goal_of, leave
from adamant.goals import Targeted, Untargeted
from adamant.models import build
from adamant.models.generators import changed
from adamant.models.wrap import LogOfProbabilities
from adamant.random import Rng
from adamant.values import brief

PLAY = Play(steps=300, batch_size=64, measures=2)


def turn(held, descend=lambda name, loss: None, n=32):
    rows = torch.arange(n)
    return Turn(
        x=held.data.x[rows], y=held.data.y[rows], rng=Rng.of(0, rows), step=0, done=0.0, material=held, descend=descend
    )


@lru_cache
def played(game, **play):
    return fit(Match(game=game, material=material(), play=replace(PLAY, **play)))


# --- losses on numbers


def test_the_margin_with_its_hinge():
    logits = torch.tensor([[5.0, 1.0, 2.0], [0.0, 3.0, 1.0], [1.0, 9.0, -4.0]])
    y = torch.tensor([0, 0, 0])
    # max(Z_y - max_{j != y} Z_j, -k): 5 - 2, 0 - 3, 1 - 9
    assert leave(logits, Untargeted(y), 4.0).tolist() == [3.0, -3.0, -4.0]
    assert leave(logits, Untargeted(y), 0.0).tolist() == [3.0, 0.0, 0.0]
    # the log probability of the label, with cross-entropy: no less than -0.5
    entropy = leave(logits, Untargeted(y), 0.5, am.CrossEntropy())
    assert entropy[0] == pytest.approx(5 - math.log(sum(map(math.exp, (5, 1, 2)))), abs=1e-5)
    assert entropy[1:].tolist() == [-0.5, -0.5]
    # toward class 2: the best other class less the target, 5 - 2, 3 - 1, 9 + 4
    assert leave(logits, Targeted(y, y + 2), 4.0).tolist() == [3.0, 2.0, 13.0]
    assert leave(logits, goal_of(y, 2), 4.0).tolist() == [3.0, 2.0, 13.0]


def test_the_soft_hinge_on_the_size():
    x = torch.zeros(3, 1, 2, 2)
    z = torch.tensor([[3.0, 4.0, 0.0, 0.0], [0.3, 0.0, 0.0, 0.4], [0.0] * 4]).view(3, 1, 2, 2)
    assert torch.allclose(Small(bound=1.0)(z, x), torch.tensor([4.0, 0.0, 0.0]))
    z.requires_grad_(True)
    (slope,) = torch.autograd.grad(Small(bound=1.0)(z, x).sum(), z)
    assert torch.allclose(slope[0].flatten(), torch.tensor([0.6, 0.8, 0.0, 0.0]))
    assert not slope[1:].any()
    (slope,) = torch.autograd.grad(Small()(z, x).sum(), z)
    assert slope.isfinite().all()  # at x itself the norm has no slope


def test_what_the_surrogate_learns():
    ours, said = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.7, 0.3], [1.0, 0.0]])
    log = lambda a, b: math.log(math.exp(a) / (math.exp(a) + math.exp(b)))  # noqa: E731
    want = [-0.7 * log(2, 0) - 0.3 * log(0, 2), -log(0, 1)]
    assert torch.allclose(Distilled()(ours, said), torch.tensor(want))


def test_the_whole_is_the_sum_of_its_parts():
    held, game = material(), AdvGAN(confidence=1.0, realism=0.2, small=Small(bound=0.5, weight=0.05))
    networks, given = game.build((1, 8, 8), 10, 0), {}
    told = game.update(networks, turn(held, lambda name, loss: given.update({name: loss.detach()})))
    x, y = turn(held).x, turn(held).y
    with torch.no_grad():
        z = changed(networks["generator"], x, held.threat)
        own, fake = networks["discriminator"](x), networks["discriminator"](z)
        logits = victim()(z).double()
    rows = range(len(y))
    margin = [max(float(logits[i, y[i]] - max(v for j, v in enumerate(logits[i]) if j != y[i])), -1.0) for i in rows]
    size = [max(0.0, float((z - x)[i].double().norm()) - 0.5) for i in rows]
    fooled = [math.log1p(math.exp(-float(v))) for v in fake]
    mean = lambda v: sum(v) / len(v)  # noqa: E731
    assert float(given["generator"]) == pytest.approx(mean(margin) + 0.2 * mean(fooled) + 0.05 * mean(size), rel=1e-4)
    spotted = [math.log1p(math.exp(-float(a))) + math.log1p(math.exp(float(b))) for a, b in zip(own, fake, strict=True)]
    assert float(given["discriminator"]) == pytest.approx(mean(spotted), rel=1e-4)
    assert float(told["adversarial"]) == pytest.approx(mean(margin), rel=1e-4)


# --- traps


class Loud(nn.Module):
    """A model so sure of itself that its probabilities are 0 and 1."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return 300 * self.net(x)


def test_a_model_that_is_sure_still_teaches():
    """Trap: a margin on probabilities has no slope where they round to one; that on logits has, however large."""
    held = material(Loud(victim()))
    networks = AdvGAN().build((1, 8, 8), 10, 0)
    x, y = turn(held).x, turn(held).y
    weights = list(networks["generator"].parameters())

    def slope(of):
        z = changed(networks["generator"], x, held.threat)
        found = torch.autograd.grad(leave(of(held.target(z)), Untargeted(y), 5.0).mean(), weights)
        return sum(float(g.abs().sum()) for g in found)

    assert slope(lambda logits: logits.softmax(1)) < 1e-3 * slope(lambda logits: logits)
    seen = []

    def descend(name, loss):
        if name == "generator":
            seen.extend(torch.autograd.grad(loss, weights))

    AdvGAN(realism=0.0, small=None).update(networks, turn(held, descend))
    assert sum(float(g.abs().sum()) for g in seen) == pytest.approx(slope(lambda logits: logits), rel=1e-3)


def test_a_model_that_returns_probabilities_is_refused():
    with pytest.raises(InputError, match="does not return logits"):
        AdvGAN().check(material(nn.Sequential(victim(), nn.Softmax(1))))
    AdvGAN().check(material(LogOfProbabilities(nn.Sequential(victim(), nn.Softmax(1)))))


class Careless(nn.Module):
    """A model with dropout and batch norm, which notes how it is asked."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Dropout(0.5), nn.Linear(32, 10)
        )
        self.seen = []

    def forward(self, x):
        modes = {part.training for part in self.modules()}
        self.seen.append((modes, torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())))
        return self.net(x)


@pytest.mark.parametrize("distilled", [None, Distilled(surrogate="zoo:mlp")])
def test_the_model_is_asked_in_eval_mode_and_left_as_it_was(distilled):
    """Trap: dropout left on makes the model another one at each step, batch norm learns from changed inputs."""
    model = Careless()
    held = material(model.train())
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    game = AdvGAN(distilled=distilled)
    game.check(held)
    fit(Match(game=game, material=held, play=Play(steps=4, batch_size=16, measures=2)))
    assert {(frozenset(modes), grad) for modes, grad in model.seen} == {(frozenset({False}), False)}
    assert all(part.training for part in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert torch.equal(before, torch.get_rng_state())


def test_the_same_step_twice_is_the_same():
    """With dropout on, it would not be."""
    held, game = material(Careless().train()), AdvGAN()
    networks = game.build((1, 8, 8), 10, 0)
    first, second = (game.update(networks, turn(held)) for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("threat", [am.Linf(0.1), am.L2(0.5), am.L1(1.0), am.L0(4)], ids=str)
def test_the_model_never_sees_what_is_outside_of_the_set(threat):
    """Trap: a generator that learns on what is not projected learns another attack than the one that is judged."""
    seen = []

    class Watching(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            seen.append(x.detach())
            return self.net(x)

    held = material(Watching(victim()), threat)
    AdvGAN().update(AdvGAN().build((1, 8, 8), 10, 0), turn(held))
    (z,) = seen
    assert threat.contains(z, turn(held).x).all()
    assert not torch.equal(z, turn(held).x)


def test_the_generator_moves_by_its_own_loss_and_nobody_else_does():
    held, game = material(), AdvGAN(distilled=Distilled(surrogate="zoo:mlp"))
    networks = game.build((1, 8, 8), 10, 0)
    given = {}

    def descend(name, loss):
        given[name] = {
            n for n, p in networks.named_parameters()
            if p.requires_grad and torch.autograd.grad(loss, p, allow_unused=True, retain_graph=True)[0] is not None
        }  # fmt: skip
        given[name] = {n.partition(".")[0] for n in given[name]}

    game.update(networks, turn(held, descend))
    assert given["surrogate"] == {"surrogate"}
    assert given["discriminator"] == {"discriminator"}
    assert given["generator"] == {"generator", "discriminator"}  # its loss passes the frozen surrogate


# --- what it comes to


def test_it_beats_noise_of_the_same_budget_by_far(tmp_path):
    held, game = material(), AdvGAN()
    found = fit(Match(game=game, material=held, play=PLAY, folder=tmp_path))
    test, threat = digits("test"), am.Linf(EPS)
    goal, path = Untargeted(test.y), str(tmp_path / "game.safetensors")
    ours, noise, none = (
        run(attack, victim(), test.x, goal, within)
        for attack, within in (
            (am.AdvGAN(generator=path), threat), (am.Draws(steps=0), threat), (am.Draws(steps=0), am.Linf(1e-6))
        )
    )  # fmt: skip
    assert none.robust_accuracy > 0.93
    assert noise.robust_accuracy > 0.9
    assert ours.robust_accuracy < 0.65
    assert threat.contains(ours.x_adv, test.x).all()
    assert found.final.figures["fooled"] == pytest.approx(found.measured[found.best_step // 150 - 1]["fooled"])
    again = files.load(path)
    assert again.game == game
    assert torch.equal(
        changed(again.networks["generator"], test.x, threat), changed(found.saved.networks["generator"], test.x, threat)
    )
    with pytest.raises(InputError, match="no generator that takes labels"):
        unrestricted(path, path, 5)


@pytest.mark.parametrize("access", [am.ScoresOnly(), am.LabelsOnly()])
def test_a_black_box_is_learned_by_its_answers(access, tmp_path):
    asked = []

    class Counting(nn.Module):
        def forward(self, x):
            asked.append(len(x))
            assert not x.requires_grad
            return victim()(x)

    held = material(Counting())
    game = AdvGAN(distilled=Distilled(surrogate="zoo:mlp", access=access))
    found = fit(Match(game=game, material=held, play=replace(PLAY, steps=200, measures=1), folder=tmp_path))
    at_ends = 2 * len(held.validation.y) + 2 * 8  # measured twice, looked at once before by two calls
    assert found.final.figures["queries"] == 200 * 2 * 64 == sum(asked) - at_ends
    out = run(
        am.AdvGAN(generator=str(tmp_path / "game.safetensors")), victim(), digits("test").x,
        Untargeted(digits("test").y), am.Linf(EPS),
    )  # fmt: skip
    assert out.robust_accuracy < 0.8


def test_toward_one_class():
    found = played(AdvGAN(toward=3, small=None)).final.figures["fooled"]
    share = float((digits("val").y == 3).double().mean())
    assert found > share + 0.2


def test_a_game_reads_back_and_its_parts_are_parts():
    game = AdvGAN(distilled=Distilled(access=am.LabelsOnly()), toward=2, small=None, loss=am.CrossEntropy())
    assert words.game(brief(game)) == game
    names = {
        "Margin": am.Margin,
        "CrossEntropy": am.CrossEntropy,
        "inf": math.inf,
        "AdvGAN": AdvGAN,
        "Distilled": Distilled,
        "LabelsOnly": am.LabelsOnly,
        "Small": Small,
    }
    assert eval(repr(game), names) == game
    assert isinstance(game, Game)
    assert isinstance(game, Outlined)


# --- bad input


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"target": None}, "there is no model"),
        ({"threat": None}, "there is no threat model"),
        ({"threat": am.Linf()}, "within one finite budget"),
        ({"threat": am.Linf(PerRow([0.1, 0.2]))}, "within one finite budget"),
        ({"threat": am.Spatial()}, "changes parameters of the input"),
        ({"threat": am.Linf(0.1, box=(0.0, 0.5))}, "outside the box"),
        ({"target": build("zoo:mlp", shape=(1, 8, 8), classes=7)}, "knows 7 classes and the data 10"),
    ],
    ids=str,
)
def test_what_cannot_be_attacked(changes, says):
    with pytest.raises(InputError, match=says):
        AdvGAN().check(replace(material(), **changes))


def test_each_changed_picture_stands_below_its_own():
    held = material()
    few = replace(held, validation=held.validation.take(torch.arange(7)))
    networks = AdvGAN().build((1, 8, 8), 10, 0).eval()
    for given, n in ((held, 10), (few, 7)):
        shown = AdvGAN().show(networks, given, 0)
        assert shown.shape == (20, 1, 8, 8)
        assert torch.equal(shown[:n], given.validation.x[:n])
        assert 0 < (shown[10 : 10 + n] - shown[:n]).abs().max() <= float(given.threat.eps) + 1e-6
        assert bool((shown[n:10] == 1).all())


def test_what_else_cannot_be_learned():
    held = material()
    unlabelled = replace(held, data=replace(held.data, y=torch.full_like(held.data.y, -1)))
    with pytest.raises(InputError, match="no label"):
        AdvGAN().check(unlabelled)
    with pytest.raises(InputError, match="give one of 0 to 9"):
        AdvGAN(toward=10).check(held)
    with pytest.raises(InputError, match="scores or labels"):
        AdvGAN(distilled=Distilled(access=am.WhiteBox())).check(held)
