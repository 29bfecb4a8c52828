"""The adversarial autoencoder: its losses and moves by hand, the traps of other implementations, and bad input."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from adamant.data import DataSet
from adamant.errors import InputError
from adamant.generation import files
from adamant.generation.aae import AAE, Rates
from adamant.generation.aae_labels import Clustered, Guessed, Ignored, Placed, Told, hide
from adamant.generation.aae_measures import encoded
from adamant.generation.base import Game, Material, Sampler, Turn
from adamant.generation.catalogue import vocabulary
from adamant.generation.losses import R1
from adamant.generation.nets import Dense
from adamant.generation.pictures import Grid
from adamant.generation.priors import Gaussian, Ring
from adamant.random import Rng
from adamant.runtime.augment import Crop
from adamant.values import read

ROWS, CLASSES, SHAPE = 12, 3, (1, 3, 2)
TINY = Dense(wide=5)


def rows_of(n=ROWS, shape=SHAPE, seed=0, labels=True):
    y = torch.arange(n) % CLASSES if labels else torch.full((n,), -1)
    x = Rng.of(seed, n).uniform(*shape)
    return DataSet(x=x, y=y, classes=("a", "b", "c"), name="made", split="train", rows=torch.arange(n))


def made(game, shape=SHAPE, **held):
    material = Material(data=rows_of(shape=shape), validation=rows_of(shape=shape, seed=1), **held)
    game.check(material)
    return material, game.build(shape, CLASSES, 0)


def turn_at(material, step, descend):
    return Turn(
        x=material.data.x, y=material.data.y, rng=Rng.of(5, ROWS).fold(step), step=step, done=0.0, material=material,
        descend=descend,
    )  # fmt: skip


def played(game, steps, **held):
    """Some steps, with what every move was and whose weights it changed."""
    material, net = made(game, **held)
    players, moves = game.players(net), []

    def descend(name, loss):
        before = {k: v.clone() for k, v in net.named_parameters()}
        weights = [p for group in players[name].param_groups for p in group["params"]]
        for p, g in zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
            p.grad = g
        players[name].step()
        changed = {k.split(".")[0] for k, v in net.named_parameters() if not torch.equal(v, before[k])}
        moves.append((name, changed, float(loss.detach())))

    losses = [game.update(net, turn_at(material, step, descend)) for step in range(steps)]
    return net, moves, losses


# --- by hand ------------------------------------------------------------------------------------------------------


class ByHand:
    """The paper's step on plain tensors, with an Adam (arXiv:1412.6980) of its own for every player."""

    def __init__(self, net, rates):
        self.net, self.rates = net, rates
        self.moments = {}

    def adam(self, player, modules, loss, beta1, beta2):
        weights = [p for module in modules for p in module.parameters()]
        gradients = torch.autograd.grad(loss, weights)
        m, v, t = self.moments.get(player, ([0.0] * len(weights), [0.0] * len(weights), 0))
        t += 1
        m = [beta1 * a + (1 - beta1) * g for a, g in zip(m, gradients, strict=True)]
        v = [beta2 * a + (1 - beta2) * g * g for a, g in zip(v, gradients, strict=True)]
        self.moments[player] = m, v, t
        with torch.no_grad():
            for p, a, b in zip(weights, m, v, strict=True):
                a, b = a / (1 - beta1**t), b / (1 - beta2**t)
                p -= getattr(self.rates, player) * a / (b.sqrt() + 1e-8)

    def step(self, game, x, y, rng, step):
        net, found = self.net, {}
        style_dim = game.prior.dim
        one_hot = torch.eye(CLASSES)[y]

        def code():
            out = net.encoder(x)
            return out[:, :style_dim], out[:, style_dim:]

        def beside(z):
            if not isinstance(game.labels, Placed):
                return z
            return torch.cat([z, one_hot, torch.zeros(len(z), 1)], 1)

        z, guess = code()
        told = {Told: one_hot, Guessed: guess.exp() / guess.exp().sum(1, keepdim=True)}
        drawn = net.decoder(torch.cat([z, told.get(type(game.labels), z[:, :0])], 1))
        loss = ((drawn - x) ** 2).sum() / x.numel()
        found["reconstruction"] = float(loss.detach())
        self.adam("reconstruction", [net.encoder, net.decoder], loss, 0.9, 0.999)

        z, guess = code()
        prior = game.prior.draw(rng.fold("prior"), y if isinstance(game.labels, Placed) else None)
        judges, critics = [(net.critic, beside(prior), beside(z))], [net.critic]
        if isinstance(game.labels, Guessed):
            categories = torch.eye(CLASSES)[rng.fold("class").fold("part").integers(CLASSES)]
            judges.append((net.critic_of_guesses, categories, guess.exp() / guess.exp().sum(1, keepdim=True)))
            critics.append(net.critic_of_guesses)
        # Draws of the prior are what the critic calls real: -log of sigmoid(D), and -log of 1 - sigmoid(D) for codes.
        loss = sum(
            -(judge(real).sigmoid().log()).mean() - (1 - judge(fake.detach()).sigmoid()).log().mean()
            for judge, real, fake in judges
        )
        found["critic"] = float(loss.detach())
        if step % 4 == 0:  # R1 with gamma 1 at every fourth step, four times as heavy
            for judge, real, _ in judges:
                at = real.clone().requires_grad_()
                slope = torch.autograd.grad(judge(at).sum(), at, create_graph=True)[0]
                if isinstance(game.labels, Placed):
                    slope = slope[:, :style_dim]  # by the code; the class that stands beside it is no place
                loss = loss + 4 * 0.5 * (slope**2).sum() / len(at)
        self.adam("critic", critics, loss, 0.5, 0.99)
        loss = sum(-(judge(fake).sigmoid().log()).mean() for judge, _, fake in judges)
        found["encoder"] = float(loss.detach())
        self.adam("encoder", [net.encoder], loss, 0.5, 0.99)
        if isinstance(game.labels, Guessed):
            picked = torch.arange(ROWS)[rng.fold("labelled").integers(ROWS)]
            logits = net.encoder(x[picked])[:, style_dim:]
            loss = -(logits.log_softmax(1)[torch.arange(ROWS), y[picked]]).mean()
            found["labels"] = float(loss.detach())
            self.adam("labels", [net.encoder], loss, 0.9, 0.999)
        return found


GAMES = (
    AAE(prior=Gaussian(dim=2), nets=TINY, critic=4),
    AAE(prior=Gaussian(dim=2), labels=Told(), nets=TINY, critic=4, rates=Rates(reconstruction=3e-3, encoder=1e-3)),
    AAE(prior=Ring(parts=3), labels=Placed(), nets=TINY, critic=4),
    AAE(prior=Gaussian(dim=2), labels=Guessed(), nets=TINY, critic=4, rates=Rates(labels=2e-3)),
)


@pytest.mark.parametrize("game", GAMES, ids=lambda g: type(g.labels).__name__)
def test_losses_moves_and_weights_are_those_of_the_paper_step_by_step(game):
    """Three steps: a swapped target, another order, a stale code, a gradient that leaks, or moments that are shared
    by two players each end elsewhere."""
    net, _, losses = played(game, 3)
    material, other = made(game)
    hand = ByHand(other, game.rates)
    for step in range(3):
        wanted = hand.step(game, material.data.x, material.data.y, Rng.of(5, ROWS).fold(step), step)
        assert {k: float(v) for k, v in losses[step].items()} == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    for (name, mine), theirs in zip(net.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=2e-6, msg=name)


def test_each_player_moves_its_own_networks_and_in_turn():
    _, moves, _ = played(GAMES[3], 2)
    once = [
        ("reconstruction", {"encoder", "decoder"}),
        ("critic", {"critic", "critic_of_guesses"}),
        ("encoder", {"encoder"}),
        ("labels", {"encoder"}),
    ]
    assert [(name, changed) for name, changed, _ in moves] == 2 * once


@pytest.mark.parametrize("game", GAMES, ids=lambda g: type(g.labels).__name__)
def test_no_two_players_share_an_optimiser_and_each_weight_has_one(game):
    """With one optimiser for all, the moments of rebuilding and of deceiving would be one sum."""
    _, net = made(game)
    players = game.players(net)
    assert len({id(o) for o in players.values()}) == len(players) == (4 if isinstance(game.labels, Guessed) else 3)
    held = {k: {id(p) for group in o.param_groups for p in group["params"]} for k, o in players.items()}
    coder, decoder = ({id(p) for p in part.parameters()} for part in (net.encoder, net.decoder))
    assert held["reconstruction"] == coder | decoder
    assert held["encoder"] == coder
    assert held["critic"] == {id(p) for p in net.parameters()} - coder - decoder


# --- traps --------------------------------------------------------------------------------------------------------


def looks_at_neighbours(net, x):
    """Whether what comes out for the first row changes with the rows beside it, in train mode."""
    net.train()
    other = torch.cat([x[:1], Rng.of(99, len(x) - 1).normal(*x.shape[1:]) * 3])
    return not torch.allclose(net(x)[0], net(other)[0], atol=1e-6)


@pytest.mark.parametrize("game", GAMES, ids=lambda g: type(g.labels).__name__)
def test_no_network_looks_at_the_neighbours_of_a_row(game):
    """Batch normalisation in a latent critic shows it every batch with mean 0 and spread 1, wherever the codes lie."""
    _, net = made(game)
    z = Rng.of(1, 8).normal(game.prior.dim + net.heads.placed)
    assert not looks_at_neighbours(net.critic, z)
    assert not looks_at_neighbours(net.encoder, Rng.of(2, 8).uniform(*SHAPE))
    normed = nn.Sequential(net.critic[0], nn.BatchNorm1d(4), *net.critic[1:])
    assert looks_at_neighbours(normed, z)  # the test sees it


def draws_while_it_rebuilds(rebuild):
    return not torch.equal(rebuild(), rebuild())


def test_rebuilding_is_the_same_every_time_and_leaves_the_generators_alone():
    """Dropout that stays on when training is over makes codes, figures and detectors random."""
    game = GAMES[1]
    material, net = made(game)
    state = torch.get_rng_state()
    assert not draws_while_it_rebuilds(lambda: game.reconstruct(net.eval(), material.data.x, material.data.y))
    played(game, 1)
    assert torch.equal(torch.get_rng_state(), state)
    wrong = nn.Sequential(nn.Flatten(), nn.Linear(6, 6))
    assert draws_while_it_rebuilds(lambda: nn.functional.dropout(wrong(material.data.x)))  # the test sees it


def test_pictures_are_drawn_in_the_range_of_pictures_and_others_are_refused():
    game = GAMES[0]
    material, net = made(game)
    drawn = game.decode(net.requires_grad_(False), 50 * Rng.of(0, 200).normal(2))
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) <= 1
    assert float(drawn.std()) > 0.1
    for wrong in (material.data.x * 255, material.data.x * 2 - 1):
        with pytest.raises(InputError, match="scale them"):
            game.check(replace(material, data=replace(material.data, x=wrong)))


def test_columns_of_a_table_count_alike_and_come_back_in_their_own_units():
    """One column in thousands, one in thousandths, one that never changes: each is rebuilt better than by its mean."""
    n = 64
    z = Rng.of(0, n).normal(2)
    x = torch.stack([1000 + 200 * z[:, 0], 0.001 * z[:, 1], torch.full((n,), 7.0), z[:, 0] - z[:, 1]], 1)
    data = DataSet(x=x, y=torch.zeros(n).long(), classes=("a",), name="t", split="train", rows=torch.arange(n))
    game = AAE(prior=Gaussian(dim=2), nets=Dense(wide=16), critic=8, average=None, rates=Rates(reconstruction=1e-2))
    material = Material(data=data, validation=data)
    game.check(material)
    net = game.build((4,), 1, 0)
    players = game.players(net)

    def descend(name, loss):
        players[name].zero_grad()
        loss.backward(inputs=[p for group in players[name].param_groups for p in group["params"]])
        players[name].step()

    for step in range(150):
        game.update(net, Turn(x=x, y=data.y, rng=Rng.of(0, n).fold(step), step=step, done=0, material=material,
                              descend=descend))  # fmt: skip
    rebuilt = game.reconstruct(net.requires_grad_(False), x)
    error = (rebuilt - x).square().mean(0) / x.var(0).clamp_min(1e-12)
    assert error[[0, 1, 3]].max() < 0.3
    assert float((rebuilt[:, 2] - 7).abs().max()) < 0.5


# --- what it is good for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("game", [*GAMES, AAE(labels=Clustered(4), nets=TINY, critic=4)], ids=lambda g: repr(g.labels))
def test_it_is_a_game_that_samples_and_saves_and_loads(game, tmp_path):
    assert isinstance(game, Game)
    assert isinstance(game, Sampler)
    assert read(repr(game), vocabulary(), kind="game") == game
    material, net = made(game)
    net.eval()
    rng = Rng.of(0, 9)
    y = torch.arange(9) % CLASSES if game.conditional else None
    samples = game.sample(net, rng, y)
    assert samples.shape == (9, *SHAPE)
    some = torch.tensor([7, 2])
    again = game.sample(net, Rng(rng.key[some]), None if y is None else y[some])
    torch.testing.assert_close(again, samples[some])
    path = tmp_path / "game.safetensors"
    files.save(path, files.Saved(game=game, networks=net, shape=SHAPE, classes=("a", "b", "c")))
    held = files.load(path)
    assert held.game == game
    assert torch.equal(held.game.sample(held.networks, rng, y), samples)
    assert game.show(net, material, 0).shape[1:] == SHAPE


def test_the_class_reaches_the_decoder_where_it_should():
    for game in (GAMES[1], GAMES[3]):
        _, net = made(game)
        z = torch.zeros(3, 2)
        drawn = game.decode(net, z, torch.arange(3))
        assert not torch.allclose(drawn[0], drawn[1])
        with pytest.raises(InputError, match="from 0 to 2"):
            game.decode(net, z)
        with pytest.raises(InputError, match="from 0 to 2"):
            game.decode(net, z, torch.tensor([0, 1, 3]))


def test_the_critic_is_told_the_class_and_rows_without_one_have_a_place_of_their_own():
    game = GAMES[2]
    material, net = made(game)
    seen = []
    net.critic.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    y = torch.tensor([0, 1, 2, -1] * 3)
    turn = replace(turn_at(material, 0, lambda name, loss: None), y=y)
    game.update(net, turn)
    drawn, coded = seen[0], seen[1]
    wanted = torch.eye(4)[torch.where(y < 0, 3, y)]
    assert torch.equal(drawn[:, 2:], wanted)
    assert torch.equal(coded[:, 2:], wanted)
    assert torch.equal(drawn[:, :2], game.prior.draw(turn.rng.fold("prior"), y))


def test_hidden_labels_are_as_many_of_each_class_and_follow_the_row():
    data = rows_of(60)
    kept = hide(data, 9, seed=0)
    assert torch.bincount(kept.y[kept.y >= 0]).tolist() == [3, 3, 3]
    assert torch.equal(kept.y[kept.y >= 0], data.y[kept.y >= 0])
    assert torch.equal(kept.x, data.x)
    order = torch.arange(59, -1, -1)
    turned = hide(data.take(order), 9, seed=0)
    assert torch.equal(turned.y, kept.y[order])
    assert not torch.equal(hide(data, 9, seed=1).y, kept.y)
    for keep, words in ((10, "a multiple of 3"), (0, "a multiple of 3"), (63, "20 rows; 21")):
        with pytest.raises(InputError, match=words):
            hide(data, keep, seed=0)


def test_a_number_of_labels_is_as_good_as_hidden_ones():
    data = rows_of(60)
    kept = hide(data, 9, seed=0)
    assert torch.equal(Guessed(rows=9).known(data).rows, data.rows[kept.y >= 0])
    assert len(Guessed().known(kept)) == 9
    with pytest.raises(InputError, match="a multiple of 3"):
        AAE(labels=Guessed(rows=10), nets=TINY).check(Material(data=data, validation=data))


def test_guesses_are_taught_by_labelled_rows_alone():
    """The rows of the batch have no label; those of the set that have one are what is learned from."""
    game = GAMES[3]
    material, net = made(game)
    labelled = torch.tensor([2, 4, 9])
    y = torch.full((ROWS,), -1)
    y[labelled] = torch.tensor([2, 1, 0])
    material = replace(material, data=replace(material.data, y=y))
    seen = []
    net.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    game.update(net, replace(turn_at(material, 0, lambda name, loss: None), y=y))
    last = seen[-1].flatten(1)
    among = (last[:, None] == material.data.x[labelled].flatten(1)).all(2)
    assert len(last) == ROWS
    assert bool(among.any(1).all())
    assert bool(among.any(0).all())


@pytest.mark.parametrize("rebuilds", [True, False])
def test_the_decoder_teaches_the_guess_only_where_it_is_to(rebuilds):
    game = AAE(prior=Gaussian(dim=2), labels=Guessed(rebuilds=rebuilds), nets=TINY, critic=4)
    material, net = made(game)
    moves = {}
    game.update(net, turn_at(material, 0, lambda name, loss: moves.update({name: loss})))
    slope = torch.autograd.grad(moves["reconstruction"], net.encoder[-1].weight)[0]
    assert bool(slope[:2].any())
    assert bool(slope[2:].any()) == rebuilds


def test_a_steady_guess_costs_the_divergence_from_the_guess_of_the_row_itself():
    game = AAE(prior=Gaussian(dim=2), labels=Guessed((Crop(1),), steady=0.5), nets=TINY, critic=4)
    material, net = made(game)
    moves = {}
    turn = turn_at(material, 0, lambda name, loss: moves.update({name: loss}))
    game.update(net, turn)
    rng, x, y = turn.rng, material.data.x, material.data.y

    def guess(rows):
        return net.encoder(rows)[:, 2:].log_softmax(1)

    picked = rng.fold("labelled").integers(ROWS)
    labelled = Crop(1)(x[picked], rng.fold("labelled").fold("augment").fold(0))
    still, moved = guess(x).detach(), guess(Crop(1)(x, rng.fold("steady").fold("augment").fold(0)))
    wanted = -guess(labelled)[torch.arange(ROWS), y[picked]].mean()
    wanted = wanted + 0.5 * (still.exp() * (still - moved)).sum(1).mean()
    torch.testing.assert_close(moves["labels"], wanted)
    both = (torch.autograd.grad(loss, net.encoder.parameters()) for loss in (moves["labels"], wanted))
    for mine, theirs in zip(*both, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-7)


# --- bad input ----------------------------------------------------------------------------------------------------


def with_labels(y):
    return replace(rows_of(), y=torch.as_tensor(y).expand(ROWS).clone() if not torch.is_tensor(y) or y.ndim == 0 else y)


@pytest.mark.parametrize(
    ("game", "data", "words"),
    [
        (GAMES[1], with_labels(-1), "asks for labels and the rows have none"),
        (GAMES[2], with_labels(-1), "asks for labels and the rows have none"),
        (GAMES[3], with_labels(-1), "asks for labels and the rows have none"),
        (GAMES[1], with_labels(1), "several classes and all labels are 1"),
        (GAMES[3], with_labels(1), "several classes and all labels are 1"),
        (GAMES[1], with_labels(torch.arange(ROWS) % 4 - 1), "the label of every row and 3 have none"),
        (GAMES[3], with_labels(torch.arange(ROWS) % 2), "No row of class 2 has a label"),
        (GAMES[1], with_labels(torch.arange(ROWS) % 4), "A label is 3"),
        (AAE(prior=Gaussian(dim=2), labels=Placed(), nets=TINY), rows_of(), r"prior=Ring\(parts=3\)"),
        (AAE(labels=Clustered(1), nets=TINY), rows_of(), "one class at most"),
        (AAE(labels=Guessed(steady=1.0), nets=TINY), rows_of(), "changes to be steady under"),
        (AAE(critic=0), rows_of(), "critic is 0"),
        (AAE(penalties=(R1(every=0),)), rows_of(), "due every 0 steps"),
        (AAE(prior=Gaussian(dim=0)), rows_of(), "dim=0"),
        (GAMES[0], replace(rows_of(), x=rows_of().x.index_fill(0, torch.tensor([4]), math.nan)), "Row 4"),
        (GAMES[0], rows_of(shape=(1, 2, 2)), "give alike"),
    ],
)  # fmt: skip
def test_rows_that_the_game_cannot_be_played_over_are_refused(game, data, words):
    with pytest.raises(InputError, match=words):
        game.check(Material(data=data, validation=rows_of()))


def test_rows_to_validate_with_need_labels_where_the_decoder_is_told_them():
    with pytest.raises(InputError, match="20 rows of made have none"):
        GAMES[1].check(Material(data=rows_of(), validation=rows_of(20, labels=False)))


@pytest.mark.parametrize("game", [GAMES[1], AAE(labels=Clustered(4), nets=TINY)])
def test_pictures_stand_in_rows_of_ten_one_for_each_class(game):
    material, net = made(game)
    shown = game.show(net, material, 0)
    style = game.prior.draw(Rng.of(0, 10).fold("show"))
    for label, row in enumerate(shown.split(10)):
        assert torch.allclose(row, game.decode(net, style, torch.full((10,), label)), atol=1e-6)


@pytest.mark.parametrize("n", [2, 7, 13])
def test_few_rows_to_validate_with_are_shown_too(n):
    material, net = made(GAMES[0])
    grids = [g for g in GAMES[0].gallery(net, replace(material, validation=rows_of(n)), 0) if isinstance(g, Grid)]
    _, rebuilt, between = grids
    x, last = rows_of(n).x, n - n // 10 * 10
    assert torch.equal(rebuilt.x[-20 : last - 20], x[n - last :])
    assert torch.allclose(rebuilt.x[-10 : last - 10], GAMES[0].reconstruct(net, x)[n - last :], atol=1e-6)
    assert len(between.x) == 10 * (n // 2)


def test_accuracy_is_of_rows_with_a_label():
    game = GAMES[3]
    material, net = made(game)
    y = encoded(game, net, material.validation.x)[1].argmax(1)
    y[::2] = -1
    seen = replace(material, validation=replace(material.validation, y=y))
    with torch.no_grad():
        assert game.measure(net, seen, 0).figures["accuracy"] == 1


def test_questions_that_have_no_answer_are_refused():
    game = GAMES[0]
    _, net = made(game)
    with pytest.raises(InputError, match=r"built for inputs of shape \(1, 3, 2\)"):
        game.encode(net, torch.zeros(2, 1, 4, 4))
    with pytest.raises(InputError, match="of no class that one could ask for"):
        game.sample(net, Rng.of(0, 2), torch.tensor([0, 1]))
    told, told_net = GAMES[1], made(GAMES[1])[1]
    with pytest.raises(InputError, match="told the class of each row"):
        told.reconstruct(told_net, rows_of().x)


def test_without_labels_any_label_will_do():
    for labels in (Ignored(), Clustered(3)):
        AAE(labels=labels, nets=TINY).check(Material(data=with_labels(-1), validation=rows_of()))
