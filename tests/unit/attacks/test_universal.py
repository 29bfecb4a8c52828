"""One change for all rows: where its direction is known, on rows that it never saw, and as a value."""

import pytest
import torch

import adamant as am
from adamant.attacks.universal import SameChange, universal
from adamant.batch import Shared
from adamant.errors import InputError
from adamant.goals import Untargeted
from adamant.random import Rng
from adamant.testing import Affine, Bent

SHAPE = (1, 4, 4)


@pytest.mark.parametrize("threat", [am.Linf(0.2), am.L2(0.6)])
def test_on_an_affine_network_of_two_classes_it_is_the_steepest_direction(threat):
    model, x = Affine(SHAPE, 2), Rng.of(0, 200).uniform(*SHAPE)
    with torch.no_grad():
        label = model(x).argmax(1)
    x = x[label == 0]
    made = universal(model, x, Untargeted(label[label == 0]), threat, epochs=30)
    way = (model.weight[1] - model.weight[0]).detach().view(1, *SHAPE)
    want = threat.steepest(way)[0] * threat.eps
    torch.testing.assert_close(made.change.values.float(), want, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("threat", [am.Linf(0.25), am.L2(1.0)])
def test_it_fools_rows_that_it_never_saw_better_than_noise(threat):
    model, x = Bent(SHAPE, 4).eval(), Rng.of(1, 600).uniform(*SHAPE)
    with torch.no_grad():
        label = model(x).argmax(1)
    made = universal(model, x[:300], Untargeted(label[:300]), threat, epochs=20)
    unseen = am.attack(made, model, x[300:], label[300:], threat)
    noise = am.attack(am.Draws(steps=0), model, x[300:], label[300:], threat)
    assert unseen.success_rate > noise.success_rate + 0.1
    assert (unseen.forwards <= 1).all()
    change = unseen.x_adv - x[300:]
    inner = (x[300:] > 0.3) & (x[300:] < 0.7) & unseen.broken.view(-1, 1, 1, 1)
    gap = (change - made.change.values.float()).abs()
    assert gap[inner].max() < 1e-5 + (0.3 if isinstance(threat, am.L2) else 0)  # the same change, but for the box


def test_the_same_seed_gives_the_same_change():
    model, x = Bent(SHAPE, 4).eval(), Rng.of(1, 100).uniform(*SHAPE)
    goal = Untargeted(torch.zeros(100, dtype=torch.long))
    one, two = (universal(model, x, goal, am.Linf(0.1), epochs=3, batch_size=20, seed=5) for _ in range(2))
    assert one == two
    assert one != universal(model, x, goal, am.Linf(0.1), epochs=3, batch_size=20, seed=6)


def test_another_shape_is_refused():
    model, x = Bent(SHAPE, 4).eval(), Rng.of(1, 10).uniform(*SHAPE)
    with pytest.raises(InputError, match="The change has shape"):
        am.attack(SameChange(Shared(torch.zeros(3))), model, x, torch.zeros(10, dtype=torch.long), am.Linf(0.1))
