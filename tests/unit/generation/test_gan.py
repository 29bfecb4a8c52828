"""The GAN on the digits: who moves by what, what is kept, what is said of bad rows, and that a broken loss shows."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from adamant.data import load_data
from adamant.errors import InputError
from adamant.generation.base import Game, Material, Sampler, Turn
from adamant.generation.catalogue import vocabulary
from adamant.generation.fit import Match, Play, fit
from adamant.generation.gan import GAN
from adamant.generation.judge import train_judge
from adamant.generation.losses import R1, R2, GradientPenalty, Hinge, NonSaturating, Relativistic, Wasserstein
from adamant.generation.monitor import asked_labels, samples
from adamant.generation.nets import DCGAN, Auxiliary, Dense, Projection
from adamant.generation.pictures import Gallery, Grid, sheet
from adamant.random import Rng
from adamant.runtime.average import EMA
from adamant.values import brief, read

TRAIN, VALID, TEST = (load_data("digits", split=part) for part in ("train", "val", "test"))
TINY = Dense(latent=4, wide=8)


@pytest.fixture(scope="module")
def material():
    return Material(data=TRAIN, validation=VALID, judge=train_judge(TRAIN))


GAMES = [
    GAN(nets=TINY),
    GAN(nets=TINY, loss=Hinge(), penalties=(), spectral=True),
    GAN(nets=TINY, loss=Wasserstein(), penalties=(GradientPenalty(),), critics=3, average=None),
    GAN(nets=TINY, loss=Relativistic(), penalties=(R1(), R2(every=2)), labels=Projection()),
    GAN(nets=TINY, labels=Auxiliary(weight=0.5)),
]


@pytest.mark.parametrize("game", GAMES)
def test_a_game_is_a_record(game):
    assert isinstance(game, Game)
    assert isinstance(game, Sampler)
    assert isinstance(game, Gallery)
    assert eval(repr(game)) == game
    assert read(brief(game), vocabulary(), kind="game") == game
    assert read("gan", vocabulary(), kind="game") == GAN()


def turn(game, networks, descend, step=0):
    x, y = TRAIN.x[:6], TRAIN.y[:6]
    rng = Rng.of(0, 6).fold("step").fold(step)
    return Turn(
        x=x, y=y, rng=rng, step=step, done=0.0, material=Material(data=TRAIN, validation=VALID), descend=descend
    )


@pytest.mark.parametrize("game", GAMES)
def test_who_moves_and_in_which_order(game):
    moves: list[str] = []
    networks = game.build((1, 8, 8), 10, 0)
    losses = game.update(networks, turn(game, networks, lambda name, loss: moves.append(name)))
    assert moves == ["discriminator"] * game.critics + ["generator"]
    assert {"discriminator", "generator"} <= set(losses)
    assert list(game.players(networks)) == ["discriminator", "generator"]


def moved_by(game, step=0):
    """What each player follows, and the networks."""
    held: dict[str, Tensor] = {}
    networks = game.build((1, 8, 8), 10, 0)
    game.update(networks, turn(game, networks, lambda name, loss: held.update({name: loss}), step))
    return held, networks


def test_the_discriminator_follows_its_loss_and_the_lazy_penalty():
    """Written out: real rows against made ones from the luck of the first move; the penalty eightfold, every eighth."""
    game = GAN(nets=TINY, penalties=(R1(gamma=0.5, every=8),))
    for step, times in ((0, 8), (1, 0), (8, 8)):
        held, networks = moved_by(game, step)
        make, look = networks["generator"], networks["discriminator"]
        x = TRAIN.x[:6]
        fake = make(Rng.of(0, 6).fold("step").fold(step).fold("move 0").fold("latent").normal(4)).detach()
        plain = F.softplus(-look(x)).mean() + F.softplus(look(fake)).mean()
        z = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(look(z).sum(), z)
        expected = plain + times * 0.25 * slope.flatten(1).square().sum(1).mean()
        torch.testing.assert_close(held["discriminator"], expected)


def test_the_discriminators_loss_teaches_the_generator_nothing():
    held, networks = moved_by(GAN(nets=TINY))
    weights = list(networks["generator"].parameters())
    assert torch.autograd.grad(held["discriminator"], weights, allow_unused=True) == (None,) * len(weights)


def test_the_auxiliary_classifier_is_in_both_losses():
    held, _ = moved_by(GAN(nets=TINY, penalties=(), labels=Auxiliary(weight=3.0)))
    without, networks = moved_by(GAN(nets=TINY, penalties=(), labels=Auxiliary(weight=0.0)))
    make, look = networks["generator"], networks["discriminator"]
    y, rng = TRAIN.y[:6], Rng.of(0, 6).fold("step").fold(0)
    fake = make(rng.fold("make").fold("latent").normal(4), y)
    more = 3 * F.cross_entropy(look.both(fake)[1], y)
    torch.testing.assert_close(held["generator"], without["generator"] + more)
    old = make(rng.fold("move 0").fold("latent").normal(4), y)
    named = torch.cat([look.both(TRAIN.x[:6])[1], look.both(old)[1]])
    torch.testing.assert_close(
        held["discriminator"], without["discriminator"] + 3 * F.cross_entropy(named, torch.cat([y, y]))
    )


@pytest.mark.parametrize("game", [GAMES[0], GAMES[3]])
def test_a_sample_is_of_its_seed_number_and_label_alone(game):
    networks = game.build((1, 8, 8), 10, 0).eval()
    y = asked_labels(300, 10) if game.conditional else None
    many = samples(game, networks, 300, seed=3, y=y)
    few = samples(game, networks, 7, seed=3, y=None if y is None else y[:7])
    assert torch.equal(many[:7], few)
    assert not torch.equal(few, samples(game, networks, 7, seed=4, y=None if y is None else y[:7]))
    assert len({tuple(row.flatten().tolist()) for row in many}) == 300


def test_a_few_seconds_come_near_to_the_data(material):
    """Far nearer than at the start; a wrong loss does not (below)."""
    found = fit(Match(game=GAN(), material=material, play=Play(steps=300, measures=2))).final
    assert found.figures["frechet"] < 0.1 * material.reference.ceiling.frechet
    assert found.figures["coverage"] > 0.4
    assert found.figures["modes"] == 10


@dataclass(frozen=True)
class Backwards:
    """Broken on purpose: the generator makes the logits of what it makes small."""

    formula: ClassVar[str] = ""
    source: ClassVar[str] = ""
    paired: ClassVar[bool] = False

    def discriminator(self, real: Tensor, made: Tensor) -> Tensor:
        return NonSaturating().discriminator(real, made)

    def generator(self, real: Tensor, made: Tensor) -> Tensor:
        return F.softplus(made).mean()


def test_a_loss_with_the_wrong_sign_shows_and_is_said(material):
    said: list[str] = []
    match = Match(
        game=GAN(loss=Backwards()), material=material, play=Play(steps=300, measures=2),
        watch=lambda step, steps, words: said.append(words),
    )  # fmt: skip
    found = fit(match).final
    assert found.figures["frechet"] > 0.3 * material.reference.ceiling.frechet
    assert any("Only" in line or "tells" in line for line in found.warnings)
    assert any(line.startswith("epoch 1") and ("Only" in line or "tells" in line) for line in said)


def test_the_monitor_sees_a_collapse(material):
    """A generator of one picture: one class, no spread, and a warning."""
    game = GAN(nets=TINY)
    networks = game.build((1, 8, 8), 10, 0).eval()
    with torch.no_grad():
        last = networks["generator"].body[4]
        last.weight.zero_()
        last.bias.copy_(TRAIN.x[0].flatten().clamp(0.01, 0.99).logit())
        found = game.measure(networks, material, 0)
    assert found.figures["modes"] == 1
    assert found.figures["entropy"] == 0
    assert "Only 1 of 10 classes are made" in found.warnings[0]


def test_real_rows_are_no_collapse(material):
    """Test rows in the place of samples: near the floor, all classes, no warning."""

    class Real:
        conditional = False

        def sample(self, networks, rng, y=None):
            at = (rng.fold("row").uniform(1)[:, 0] * len(TEST)).long()
            return TEST.x[at]

        def logits(self, networks, x, y=None):
            return torch.zeros(len(x))

    from adamant.generation.monitor import look_at

    found = look_at(Real(), GAN(nets=TINY).build((1, 8, 8), 10, 0), material, 0)
    assert found.figures["frechet"] < 3 * material.reference.floor.frechet
    assert found.figures["coverage"] > 0.75
    assert found.figures["told_apart"] == 0.5
    assert found.score == -found.figures["frechet"]
    assert found.warnings == ()


def test_floor_and_ceiling(material):
    floor, ceiling = material.reference.floor, material.reference.ceiling
    assert 0 < floor.frechet < 5
    assert ceiling.frechet > 20 * floor.frechet
    assert min(floor.precision, floor.recall, floor.coverage) > 0.9
    assert ceiling.coverage < 0.1


def test_the_judge_is_the_datas_alone(material):
    assert (material.judge.look(TEST.x)[1] == TEST.y).float().mean() > 0.93
    state = torch.get_rng_state()
    again = train_judge(TRAIN.take(torch.arange(100)), steps=3)
    other = train_judge(TRAIN.take(torch.arange(100)), steps=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), other.parameters(), strict=True))


def changed(**parts):
    return Material(data=replace(TRAIN, **parts), validation=VALID)


BAD = [
    (GAN(nets=DCGAN()), {}, r"DCGAN makes pictures with sides that 4 divides.*\(1, 8, 8\)"),
    (GAN(labels=Projection()), {"y": torch.zeros_like(TRAIN.y)}, "labels are asked for, and digits has one class only"),
    (GAN(labels=Auxiliary()), {"y": torch.full_like(TRAIN.y, -1)}, "labels are asked for, and 1079 rows .* have none"),
    (GAN(), {"x": TRAIN.x.clone().index_fill_(0, torch.tensor([5]), torch.nan)}, "Row .* of digits holds NaN"),
    (GAN(), {"x": 2 * TRAIN.x}, r"in \[0, 2\]; a generator makes pictures in \[0, 1\]"),
    (GAN(critics=0), {}, "at least once"),
    (GAN(labels=Projection()), {"classes": TRAIN.classes[:7]}, "A label of digits is 9, and there are 7 classes"),
    (GAN(penalties=(R1(every=0),)), {}, "is due every 0 steps"),
    (GAN(nets=Dense(latent=0)), {}, "no latents or no width"),
    (GAN(rate=-1.0), {}, "cannot move: Invalid learning rate"),
]


def test_a_conditional_game_needs_labels_of_the_rows_to_validate_with():
    unlabelled = replace(VALID, y=torch.full_like(VALID.y, -1))
    with pytest.raises(InputError, match="rows of digits have none"):
        GAN(labels=Projection()).check(Material(data=TRAIN, validation=unlabelled))


@pytest.mark.parametrize(("game", "parts", "words"), BAD)
def test_bad_rows_get_one_sentence(game, parts, words):
    with pytest.raises(InputError, match=words):
        fit(Match(game=game, material=changed(**parts), play=Play(steps=2, measures=1)))


def test_one_class_cannot_be_judged():
    one = replace(TRAIN, y=torch.zeros_like(TRAIN.y))
    with pytest.raises(InputError, match="digits has 1 class with labelled rows"):
        train_judge(one)


def test_no_judge_no_figures():
    with pytest.raises(InputError, match="Nothing can be measured without a judge"):
        fit(Match(game=GAN(nets=TINY), material=Material(data=TRAIN, validation=VALID), play=Play(steps=2, measures=1)))


def test_the_gallery_shows_ways_and_neighbours(material):
    game = GAN(nets=TINY, labels=Projection(), average=EMA(0.9))
    networks = game.build((1, 8, 8), 10, 0).eval()
    with torch.no_grad():
        ways, beside = game.gallery(networks, material, 0)
    assert ways.x.shape == (80, 1, 8, 8)
    assert beside.x.shape == (20, 1, 8, 8)
    first, near = beside.x[0], beside.x[10]
    distances = (TRAIN.x - first).flatten(1).norm(dim=1)
    assert (near - first).norm() == pytest.approx(float(distances.min()))
    assert game.show(networks, material, 0).shape == (100, 1, 8, 8)


def test_a_sheet_is_one_picture():
    x = torch.zeros(5, 1, 2, 2)
    x[1] = 1
    made = sheet(Grid(title="", x=x, columns=3), least=1)
    assert made.shape == (6, 9, 1)
    assert made[:2, 3:5].min() == 1
    assert made[:2, :2].max() == 0
    assert made[2, :].eq(0.5).all()  # a hair between
    assert sheet(Grid(title="", x=torch.zeros(4, 3, 8, 8), columns=2)).shape[1] >= 280


@pytest.mark.slow
@pytest.mark.parametrize("game", [GAN(), GAN(labels=Projection())])
def test_digits_within_seconds(game, material):
    """What is promised: at most five times the floor, four fifths of the test rows covered, every class."""
    played = fit(Match(game=game, material=material, play=Play(steps=3000)))
    last = replace(material, validation=TEST)
    found = game.measure(played.saved.networks, last, 1)
    assert found.figures["frechet"] <= 5 * last.reference.floor.frechet
    assert found.figures["coverage"] >= 0.8
    assert found.figures["modes"] == 10
    assert found.warnings == ()
