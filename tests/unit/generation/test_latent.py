"""Unrestricted examples: drawn near their code, of the class that the judge sees, and found by any attack."""

from dataclasses import replace

import pytest
import torch
from tests.unit.generation.victims import digits, victim
from torch import nn

import adamant as am
from adamant.batch import PerRow, take
from adamant.desk import pictures
from adamant.engine import run
from adamant.errors import InputError
from adamant.generation import files
from adamant.generation.base import Material
from adamant.generation.fit import Match, Play, fit
from adamant.generation.gan import GAN
from adamant.generation.judge import train_judge
from adamant.generation.latent import Latent, unrestricted
from adamant.generation.nets import Auxiliary
from adamant.goals import Untargeted
from adamant.models import Architecture, load_model, save_model
from adamant.random import Rng
from adamant.threats import Parametric

ROWS = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The files of a GAN with labels and of a judge that is another network than the one under attack."""
    folder = tmp_path_factory.mktemp("gan")
    held = Material(data=digits("train"), validation=digits("val"), judge=train_judge(digits("train")))
    fit(Match(game=GAN(labels=Auxiliary()), material=held, play=Play(steps=250, measures=1), folder=folder))
    save_model(
        victim(5), folder / "judge.safetensors", architecture=Architecture(name="zoo:mlp", shape=(1, 8, 8), classes=10)
    )
    return str(folder / "game.safetensors"), str(folder / "judge.safetensors")


@pytest.fixture(scope="module")
def rows(made):
    return unrestricted(*made, ROWS, reach=0.7)


def test_what_is_drawn(made, rows):
    x, y, threat = rows
    assert x.shape == (ROWS, 1, 8, 8)
    assert x.min() >= 0
    assert x.max() <= 1
    assert set(y.tolist()) == set(range(10))
    assert (load_model(made[1])(x).argmax(1) == y).all()
    assert isinstance(threat, Parametric)
    threat.check(x)
    again = unrestricted(*made, ROWS, reach=0.7)
    assert torch.equal(again[0], x)
    assert again[2] == threat
    assert not torch.equal(unrestricted(*made, ROWS, seed=1)[0], x)
    assert torch.equal(unrestricted(*made, 20, reach=0.7)[0], x[:20])


def test_zero_changes_nothing_and_no_row_changes_another(rows):
    x, _, threat = rows
    zero, theta = torch.zeros(ROWS, *threat.parameters(x)), Rng.of(1, ROWS).uniform(*threat.parameters(x)) * 2 - 1
    assert torch.allclose(threat.apply(x, zero), x, atol=1e-6)
    whole = threat.apply(x, theta)
    assert torch.equal(whole, pictures(threat, x, theta))
    some = torch.tensor([7, 3, 41])
    assert torch.equal(whole[some], take(threat, some).apply(x[some], theta[some]))


def test_what_the_judge_lets_pass_is_drawn_where_it_was_asked_for(made, rows):
    x, y, threat = rows
    saved, theta = files.load(made[0]), 0.3 * (Rng.of(1, ROWS).uniform(*threat.parameters(x)) * 2 - 1)
    with torch.no_grad():
        asked = saved.networks["generator"](threat.codes.values.float() + 0.7 * theta, y)
        agreed = load_model(made[1])(asked).argmax(1) == y
    assert agreed.double().mean() > 0.8
    assert torch.allclose(threat.apply(x, theta)[agreed], asked[agreed], atol=1e-5)


def test_the_judge_agrees_with_every_member(made, rows):
    x, y, threat = rows
    far = replace(threat, reach=4.0)
    theta = Rng.of(2, ROWS).sign(*threat.parameters(x))
    with torch.no_grad():
        raw = files.load(made[0]).networks["generator"](threat.codes.values.float() + 4 * theta, y)
    judge = load_model(made[1])
    assert (judge(raw).argmax(1) != y).any()
    member = far.apply(x, theta)
    assert (judge(member).argmax(1) == y).all()
    assert not torch.equal(member, x)


def test_a_gradient_reaches_the_latent(rows):
    x, y, threat = rows
    theta = (0.2 * Rng.of(3, ROWS).uniform(*threat.parameters(x))).requires_grad_(True)
    (slope,) = torch.autograd.grad(am.Margin()(victim()(threat.apply(x, theta)), Untargeted(y)).sum(), theta)
    assert (slope.flatten(1).abs().sum(1) > 0).double().mean() > 0.9


@pytest.mark.parametrize(
    "attack", [am.LatentSearch(), am.PGD(steps=30), am.RandomSearch(steps=60), am.Draws(steps=20)], ids=str
)
def test_any_attack_finds_some_and_all_are_real(attack, made, rows):
    x, y, threat = rows
    access = am.WhiteBox() if attack.needs == am.access.Sight.GRADIENT else am.ScoresOnly()
    out = run(attack, victim(), x, Untargeted(y), threat, access=access)
    judge, fell = load_model(made[1]), out.broken
    with torch.no_grad():
        assert (judge(out.x_adv).argmax(1) == y).all()
        assert (victim()(out.x_adv[fell]).argmax(1) != y[fell]).all()
    assert (out.size <= 1).all()
    if not isinstance(attack, am.Draws):
        assert out.success_rate > 0.25


def test_a_row_does_not_depend_on_its_batch(rows):
    x, y, threat = rows
    whole = run(am.LatentSearch(steps=6), victim(), x, Untargeted(y), threat)
    some = torch.arange(5, 22)
    part = run(
        am.LatentSearch(steps=6), victim(), x[some], Untargeted(y[some]), take(threat, some),
        rng=Rng.of(0, some), settings=am.Settings(batch_size=7),
    )  # fmt: skip
    assert torch.equal(whole.x_adv[some], part.x_adv)
    assert torch.equal(whole.status[some], part.status)


def test_the_second_term_keeps_what_is_drawn_like_its_class(made, rows):
    x, y, threat = rows
    saved, theta = files.load(made[0]), 0.5 * Rng.of(4, ROWS).sign(*threat.parameters(x))
    with torch.no_grad():
        drawn = saved.networks["generator"](threat.codes.values.float() + 0.7 * theta, y)
        named = saved.networks["discriminator"].both(drawn)[1].log_softmax(1)
    assert torch.allclose(threat.likeness(theta), named[torch.arange(ROWS), y], atol=1e-4)
    ends = {}
    for weight in (0.0, 30.0):
        out = run(am.LatentSearch(steps=12, weight=weight), Sure(load_model(made[1])), x, Untargeted(y), threat)
        assert not out.broken.any()
        with torch.no_grad():
            like = saved.networks["discriminator"].both(out.x_adv)[1].log_softmax(1)
        ends[weight] = float(like[torch.arange(ROWS), y].mean())
    assert ends[30.0] > ends[0.0] + 0.01


class Sure(nn.Module):
    """A model that is never wrong where the judge is right, and yet has the slope of another."""

    def __init__(self, judge):
        super().__init__()
        self.judge = judge

    def forward(self, x):
        return victim()(x) + 1e3 * nn.functional.one_hot(self.judge(x).argmax(1), 10)


def test_bad_input(made, rows, tmp_path):
    x, y, threat = rows
    with pytest.raises(InputError, match=r"60 latents for 10 inputs"):
        run(am.PGD(steps=2), victim(), x[:10], Untargeted(y[:10]), threat)
    with pytest.raises(InputError, match="not what the generator draws at the codes"):
        threat.check(x.flip(0))
    wrong = replace(threat, labels=PerRow((y + 1) % 10))
    with pytest.raises(InputError, match=r"not what the generator draws|does not see the class"):
        wrong.check(x)
    with pytest.raises(InputError, match="There is no judge at nobody"):
        unrestricted(made[0], "nobody.safetensors", 5)
    with pytest.raises(InputError, match="There is no generator at nothing"):
        unrestricted("nothing.safetensors", made[1], 5)
    with pytest.raises(InputError, match="holds no game"):
        unrestricted(made[1], made[1], 5)
    with pytest.raises(InputError, match="LatentSearch works in the latent space"):
        run(am.LatentSearch(), victim(), x, Untargeted(y), am.Linf(0.1))
    blind = tmp_path / "blind.safetensors"
    net = load_model("zoo:mlp", shape=(1, 8, 8), classes=10)
    save_model(net, blind, architecture=Architecture(name="zoo:mlp", shape=(1, 8, 8), classes=10))
    with pytest.raises(InputError, match=r"sees the class that was asked for in \d+ of 160"):
        unrestricted(made[0], str(blind), 40)
    assert isinstance(threat, Latent)
