"""NAG: its losses on numbers, changes that differ from one another, and more broken rows than by noise."""

import math
from dataclasses import replace

import pytest
import torch
from tests.unit.generation.test_advgan import Careless, turn
from tests.unit.generation.victims import EPS, digits, material, victim
from torch import nn

import adamant as am
from adamant.engine import run
from adamant.errors import InputError
from adamant.generation.fit import Match, Play, fit
from adamant.generation.nag import NAG, alike
from adamant.goals import Untargeted
from adamant.models.generators import changed, draw
from adamant.random import Rng


def test_sameness_is_the_cosine_of_centred_answers():
    a, b = torch.tensor([[1.0, 2.0, 6.0], [1.0, 0.0, 0.0]]), torch.tensor([[4.0, 5.0, 9.0], [-1.0, 0.0, 0.0]])
    assert torch.allclose(alike(a, b), torch.tensor([1.0, -1.0]))
    c = torch.tensor([[0.0, 1.0, 2.0]])
    want = (-2 * -1 + -1 * 0 + 3 * 1) / math.sqrt((4 + 1 + 9) * 2)
    assert float(alike(a[:1], c)) == pytest.approx(want, rel=1e-5)


def test_the_whole_on_numbers():
    held, game, given = material(), NAG(confidence=1.0, diversity=3.0, noise=4), {}
    networks = game.build((1, 8, 8), 10, 0)
    game.update(networks, turn(held, lambda name, loss: given.update({name: float(loss.detach())})))
    x, y = turn(held).x, turn(held).y
    noise = Rng.of(0, 32).fold("change").uniform(4) * 2 - 1
    with torch.no_grad():
        answers = [victim()(changed(networks["generator"], x, held.threat, u)) for u in (noise, noise.roll(1, 0))]
        moves = [(a - victim()(x)).double() for a in answers]
    margins, cosines = [], []
    for i in range(32):
        for logits in answers:
            row = [float(v) for v in logits[i]]
            margins.append(max(row[y[i]] - max(v for j, v in enumerate(row) if j != y[i]), -1.0))
        a, b = (m[i] - m[i].mean() for m in moves)
        cosines.append(float(a @ b / (a.norm() * b.norm())))
    assert given["generator"] == pytest.approx(sum(margins) / 64 + 3 * sum(cosines) / 32, rel=1e-3)


def test_its_changes_differ_and_break_more_than_noise(tmp_path):
    held, test, threat = material(), digits("test"), am.Linf(EPS)
    play = Play(steps=120, batch_size=64, measures=1)
    cosine = {}
    for diversity in (0.0, 5.0):
        found = fit(Match(game=NAG(diversity=diversity), material=held, play=play, folder=tmp_path))
        net = found.saved.networks["generator"]
        made = torch.cat([net(draw(net, i)).flatten(1) for i in range(10)])
        made = made / made.norm(dim=1, keepdim=True)
        cosine[diversity] = float((made @ made.T)[~torch.eye(10, dtype=torch.bool)].mean())
    assert cosine[0.0] > 0.95
    assert cosine[5.0] < 0.8
    goal, path = Untargeted(test.y), str(tmp_path / "game.safetensors")
    rates = {
        (type(a).__name__, a.steps): run(a, victim(), test.x, goal, threat).success_rate
        for a in (am.NAG(generator=path, steps=0), am.NAG(generator=path), am.Draws(steps=0), am.Draws(steps=9))
    }
    assert rates["NAG", 0] > 2 * rates["Draws", 0] + 0.05
    assert rates["NAG", 9] > 2 * rates["Draws", 9] + 0.1
    assert rates["NAG", 9] > rates["NAG", 0] + 0.1


def test_the_model_is_asked_in_eval_mode():
    model = Careless()
    held = material(model.train())
    fit(Match(game=NAG(), material=held, play=Play(steps=2, batch_size=16, measures=1)))
    assert {(frozenset(modes), grad) for modes, grad in model.seen} == {(frozenset({False}), False)}
    assert model.training


def test_what_cannot_be_attacked():
    with pytest.raises(InputError, match="there is no model"):
        NAG().check(replace(material(), target=None))
    with pytest.raises(InputError, match="does not return logits"):
        NAG().check(material(nn.Sequential(victim(), nn.Softmax(1))))
    with pytest.raises(InputError, match="no number below zero"):
        NAG(noise=-1).build((1, 8, 8), 10, 0)
    with pytest.raises(InputError, match="noise is 0"):
        NAG(noise=0).check(material())
