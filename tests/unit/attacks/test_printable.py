"""A learned print: where the best one is known, on rows that it never saw, and the same for the same seed."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import adamant as am
from adamant.attacks import printable
from adamant.batch import Shared
from adamant.errors import InputError
from adamant.goals import Targeted, Untargeted
from adamant.models import load_model
from adamant.random import Rng
from adamant.testing import Bent
from adamant.threats import Pasted

SHARED = Path(__file__).parents[3].parent / "shared"
MODELS = Path(os.environ.get("ADAMANT_MODELS_DIR", SHARED / "models"))
DATA = Path(os.environ.get("ADAMANT_DATA_DIR", SHARED / "data"))


def grey(*shape, box=(0.0, 1.0)):
    return Pasted(picture=Shared(torch.full(shape, sum(box) / 2)), box=box)


class Counts(nn.Module):
    """Class 1 where the first channel outweighs the second by enough."""

    def forward(self, x):
        score = (x[:, 0] - x[:, 1]).flatten(1).mean(1)
        return torch.stack([torch.zeros_like(score), score], 1)


@pytest.mark.parametrize("box", [(0.0, 1.0), (-2.0, 5.0)])
@pytest.mark.parametrize("targeted", [False, True])
def test_where_every_place_wants_the_same_it_is_found(box, targeted):
    x = box[0] + (box[1] - box[0]) * Rng.of(0, 30).uniform(2, 8, 8)
    zero, one = torch.zeros(30, dtype=torch.long), torch.ones(30, dtype=torch.long)
    goal = Targeted(zero, one) if targeted else Untargeted(zero)
    made = printable(Counts(), x, goal, grey(2, 3, 3, box=box), epochs=12)
    assert (made.picture.values[0] == box[1]).all()
    assert (made.picture.values[1] == box[0]).all()


def test_it_fools_rows_that_it_never_saw_better_than_a_random_print():
    x = Rng.of(1, 500).uniform(1, 10, 10)
    model = nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))
    with torch.no_grad():
        model[-1].bias -= model(x).mean(0)  # every class is somebody's
        label = model(x).argmax(1)
    made = printable(model, x[:300], Untargeted(label[:300]), grey(1, 4, 4), epochs=15)
    noise = replace(made, picture=Shared(Rng.of(7, 1).uniform(4, 4)))
    once = am.Draws(steps=0)
    learned, random = (am.attack(once, model, x[300:], label[300:], t).success_rate for t in (made, noise))
    assert learned > random + 0.1
    worst = am.attack(am.RandomSearch(steps=30), model, x[300:], label[300:], made).success_rate
    assert worst > learned + 0.05


def test_the_same_seed_gives_the_same_print():
    model, x = Bent((1, 8, 8), 4).eval(), Rng.of(1, 60).uniform(1, 8, 8)
    goal = Untargeted(torch.zeros(60, dtype=torch.long))
    one, two, other = (printable(model, x, goal, grey(1, 3, 3), epochs=3, batch_size=20, seed=s) for s in (5, 5, 6))
    assert one == two
    assert one != other
    assert all(p.grad is None for p in model.parameters())


def test_every_epoch_and_every_seed_has_places_of_its_own():
    class Watched(Counts):
        def forward(self, x):
            self.covered.append(tuple((x[0] != 0.5).flatten().nonzero().flatten().tolist()))
            return super().forward(x)

    x, goal = torch.full((1, 2, 9, 9), 0.5), Untargeted(torch.zeros(1, dtype=torch.long))
    places = []
    for seed in range(3):
        model = Watched()
        model.covered = []
        white = Pasted(picture=Shared(torch.ones(2, 2, 2)), degrees=0.0, zoom=0.0)
        printable(model, x, goal, white, epochs=6, rate=1e-9, seed=seed)
        places += model.covered
    assert len(set(places)) > 12


def test_what_cannot_be_learned_is_refused():
    model, x = Bent((1, 8, 8), 4).eval(), Rng.of(1, 10).uniform(1, 8, 8)
    goal = Untargeted(torch.zeros(10, dtype=torch.long))
    with pytest.raises(InputError, match="does not fit"):
        printable(model, x, goal, grey(1, 8, 8))
    with pytest.raises(InputError, match="numbers above zero"):
        printable(model, x, goal, grey(1, 2, 2), epochs=0)


@pytest.mark.slow
@pytest.mark.parametrize("target", [None, 3])
def test_on_digits_it_fools_a_defended_network_at_random_places(target):
    """A disc nine pixels wide, learned on 1500 rows, judged on 300 others; a random one beside it."""
    weights, data = MODELS / "mnist_cnn_pgd.safetensors", DATA / "mnist.npz"
    if not (weights.exists() and data.exists()):
        pytest.skip(f"needs {weights.name} (ADAMANT_MODELS_DIR) and mnist.npz (ADAMANT_DATA_DIR)")
    model = load_model(weights, arch="zoo:cnn", shape=(1, 28, 28), classes=10)
    with np.load(data, allow_pickle=False) as held:
        (x, y), (unseen, their) = (
            (torch.from_numpy(held[f"x_{s}"][:n])[:, None].float() / 255, torch.from_numpy(held[f"y_{s}"][:n]).long())
            for s, n in (("train", 1500), ("test", 300))
        )
    if target is not None:
        x, y, unseen, their = x[y != target], y[y != target], unseen[their != target], their[their != target]
    wanted = [None if target is None else torch.full_like(v, target) for v in (y, their)]
    goal = Untargeted(y) if wanted[0] is None else Targeted(y, wanted[0])
    at = torch.arange(9) - 4
    disc = Shared(at[:, None].square() + at.square() <= 20)
    made = printable(model, x, goal, replace(grey(1, 9, 9), mask=disc), epochs=15)
    noise = replace(made, picture=Shared(Rng.of(7, 1).uniform(9, 9)))
    learned, random = (
        am.attack(am.Draws(steps=0), model, unseen, their, t, target=wanted[1]).success_rate for t in (made, noise)
    )
    assert learned > (0.3 if target is None else 0.1)  # of all at one place each: 33 % and 12 %
    assert random < (0.2 if target is None else 0.02)
    worst = am.attack(am.RandomSearch(steps=20), model, unseen, their, made, target=wanted[1]).success_rate
    assert worst > (0.7 if target is None else 0.4)  # at the worst of a few places
