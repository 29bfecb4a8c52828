"""JSMA against the paper's algorithm with all pairs, its traps in other libraries, and the search for the best pair."""

import pytest
import torch
from torch import nn

from adamant.adversary import Status
from adamant.attacks.saliency import JSMA, Rivals, best_pair, best_single, jacobian, saliency_map, worth
from adamant.batch import PerRow, Shared
from adamant.engine import run
from adamant.errors import InputError
from adamant.goals import Targeted, Untargeted
from adamant.models.wrap import OneLogit
from adamant.random import Rng
from adamant.testing import Bent
from adamant.threats import L0, Linf


def every_pair(rises, falls):
    """The best value over all pairs, one after another."""
    a, b = (v.double()[:, :, None] + v.double()[:, None, :] for v in (rises, falls))
    value = torch.where((a > 0) & (b > 0), a * b, 0.0)
    return (value * torch.ones_like(value[0]).triu(1)).flatten(1).amax(1)


def maps(seed, rows, size, together):
    draw = Rng.of(seed, rows)
    a, b = draw.fold("a").normal(size), draw.fold("b").normal(size)
    return a, together * a + (1 - together**2) ** 0.5 * b


@pytest.mark.parametrize("together", [0.0, 0.9, -0.9, -0.999])
@pytest.mark.parametrize("coarse", [False, True])  # coarse maps have many equals
@pytest.mark.parametrize("size", [2, 3, 40])
def test_the_best_pair_is_the_best_of_all_pairs(together, coarse, size):
    rises, falls = maps(1, 200, size, together)
    if coarse:
        rises, falls = (3 * rises).round(), (3 * falls).round()
    pair, value = best_pair(rises, falls)
    assert torch.equal(value, every_pair(rises, falls))
    found = worth(rises.double().gather(1, pair).sum(1), falls.double().gather(1, pair).sum(1))
    any_ = value > 0
    assert torch.equal(found[any_], value[any_])
    assert bool((pair[:, 0] != pair[:, 1])[any_].all())


def test_the_best_pair_of_few_candidates_at_once_is_the_same(monkeypatch):
    rises, falls = maps(2, 9, 60, -0.99)
    whole = best_pair(rises, falls)
    monkeypatch.setattr("adamant.attacks.saliency._AT_ONCE", 1)
    assert all(torch.equal(a, b) for a, b in zip(best_pair(rises, falls), whole, strict=True))


def test_entries_out_of_reach_are_in_no_pair():
    """Equals, constants and entries that are not to be had: none of them pairs with itself or with nothing."""
    out = -torch.inf
    rises = torch.tensor([[1.0, 1.0, out, 9.0], [2.0, out, out, out], [0.0, 0.0, 0.0, 0.0], [5.0, 5.0, 5.0, 5.0]])
    falls = torch.tensor([[1.0, 1.0, out, -9.0], [2.0, out, out, out], [0.0, 0.0, 0.0, 0.0], [-5.0, -5.0, -5.0, -5.0]])
    pair, value = best_pair(rises, falls)
    assert value.tolist() == [4.0, 0.0, 0.0, 0.0]
    assert set(pair[0].tolist()) == {0, 1}


def test_tiny_slopes_are_worth_something():
    tiny = torch.full((1, 4), 1e-30)
    assert best_pair(tiny, tiny)[1] > 0
    assert best_single(tiny, tiny)[1] > 0


def test_a_picture_of_imagenet_size_is_searched_through():
    rises, falls = maps(3, 2, 3 * 224 * 224, -0.5)
    pair, value = best_pair(rises, falls)
    for i in range(2):
        a, b = rises[i : i + 1], falls[i : i + 1]
        some = torch.cat([v.topk(100).indices for v in (a[0], b[0], (a + b)[0])]).unique()
        assert value[i] >= every_pair(a[:, some], b[:, some])
        assert value[i] == every_pair(a[:, pair[i]], b[:, pair[i]])
    assert pair.shape == (2, 2)


# --- the algorithm ----------------------------------------------------------------------------------------------------


def net(seed=4, classes=5, size=36):
    return Bent((1, 6, 6), classes, seed=seed).eval()


def inputs(rows=12, low=0.0, high=1.0):
    u = Rng.of(8, rows).uniform(1, 6, 6)
    return low + (high - low) * (1.5 * u - 0.25).clamp(0, 1)


def published(model, x, target, theta, gamma, *, untargeted=False, pairs=True):
    """Algorithms 2 and 3 of the paper for one input, with the whole Jacobian and a loop over all pairs."""
    z, d = x.clone(), x.numel()
    for _ in range(int(d * gamma) // (1 + pairs)):
        if (int(model(z[None]).argmax()) == target) != untargeted:
            break
        slopes = torch.autograd.functional.jacobian(lambda v: model(v[None])[0], z).flatten(1)
        own, others = slopes[target], slopes.sum(0) - slopes[target]
        if (theta < 0) != untargeted:
            own, others = -own, -others
        domain = [i for i in range(d) if abs(theta) / 100 < (1 - z.flatten()[i] if theta > 0 else z.flatten()[i])]
        best, chosen = 0.0, None
        for p in domain:
            for q in [q for q in domain if q > p] if pairs else [None]:
                of = [p] if q is None else [p, q]
                a, b = float(own[of].sum()), float(others[of].sum())
                if a > 0 and b < 0 and -a * b > best:
                    best, chosen = -a * b, of
        if chosen is None:
            break
        z.view(-1)[chosen] = (z.view(-1)[chosen] + theta).clamp(0, 1)
    return z


@pytest.mark.parametrize("theta", [1.0, -1.0])
@pytest.mark.parametrize("untargeted", [False, True])
@pytest.mark.parametrize("pairs", [True, False])
def test_it_is_the_papers_algorithm(theta, untargeted, pairs):
    """Each row the same to the last entry as the paper's loops with all pairs and the whole Jacobian."""
    model, x = net(), inputs()
    label = model(x).argmax(1)
    target = (label + 1) % 5
    goal = Untargeted(label) if untargeted else Targeted(label, target)
    out = run(JSMA(theta=theta, gamma=0.3, pairs=pairs), model, x, goal, L0())
    of = label if untargeted else target
    want = torch.stack(
        [
            published(model, v, int(c), theta, 0.3, untargeted=untargeted, pairs=pairs)
            for v, c in zip(x, of, strict=True)
        ]
    )
    reached = goal.reached(model(want).detach())
    assert torch.equal(out.broken, reached)
    assert int(reached.sum()) >= 2
    assert torch.equal(out.x_adv[reached], want[reached])


def test_it_is_cleverhans_with_probabilities():
    """On probabilities the others lose what the target gains: the steepest entries of the target's probability."""
    model, x = net(), inputs(4)
    label = model(x).argmax(1)
    target = (label + 1) % 5
    soft = nn.Sequential(model, nn.Softmax(1))
    out = run(JSMA(gamma=0.3, probabilities=True), model, x, Targeted(label, target), L0())
    want = torch.stack([published(soft, v, int(c), 1.0, 0.3) for v, c in zip(x, target, strict=True)])
    reached = model(want).argmax(1) == target
    assert torch.equal(out.broken, reached)
    assert bool(reached.any())
    assert torch.equal(out.x_adv[reached], want[reached])


def test_below_zero_theta_decreases():
    """cleverhans 3.1 subtracts a theta below zero, and so increases what it means to decrease."""
    model, x = net(), inputs()
    out = run(JSMA(theta=-1.0, gamma=0.5), model, x, Untargeted(model(x).argmax(1)), L0())
    assert bool(out.broken.any())
    assert bool((out.x_adv <= x).all())
    up = run(JSMA(gamma=0.5), model, x, Untargeted(model(x).argmax(1)), L0())
    assert bool((up.x_adv >= x).all())


def test_any_number_of_classes_and_any_box():
    """torchattacks 3.5.1 aims at (label + 1) % 10 and clips to [0, 1]."""
    wide = L0(box=(-1.0, 3.0))
    for classes in (2, 3, 12):
        model, x = net(classes=classes), inputs(low=-1.0, high=3.0)
        label = model(x).argmax(1)
        for goal in (Untargeted(label), Targeted(label, (label + 1) % classes)):
            ends = [run(JSMA(theta=theta, gamma=0.8), model, x, goal, wide) for theta in (1.0, -1.0)]
            assert bool((ends[0].broken | ends[1].broken).any())
            for out, end in zip(ends, (3.0, -1.0), strict=True):
                moved = out.x_adv != x
                assert bool((out.x_adv[moved] == end).all())


def test_an_entry_that_has_hardly_room_is_left_alone():
    """Steepest by far, but at 253/255: changing it would spend an entry on nothing (cleverhans 3.1 does)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[-9.0, -2.0, 1.0], [9.0, 2.0, 0.0]]))
        model[1].bias.copy_(torch.tensor([20.0, 0.0]))
    x, zero = torch.tensor([[253 / 255, 0.0, 0.0]]), torch.zeros(1, dtype=torch.long)
    out = run(JSMA(gamma=1.0, pairs=False), model, x, Untargeted(zero), L0())
    assert out.x_adv.tolist() == [[x[0, 0].item(), 1.0, 0.0]]


def test_others_count():
    """ART 1.20 looks at the target's slope alone; here the entry that lifts the target most lifts the label more."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[4.0, -1.0, 0.0], [3.0, 1.0, 0.0]]))
        model[1].bias.copy_(torch.tensor([0.5, 0.0]))
    x, zero = torch.zeros(1, 3), torch.zeros(1, dtype=torch.long)
    out = run(JSMA(gamma=1.0, pairs=False), model, x, Targeted(zero, zero + 1), L0())
    assert out.x_adv.tolist() == [[0.0, 1.0, 0.0]]


def test_no_more_entries_than_gamma_and_the_budget_allow():
    model, x = net(), inputs(40)
    goal = Untargeted(model(x).argmax(1))
    for gamma, eps, most in ((1.0, 3.0, 3), (1.0, 4.0, 4), (0.09, 30.0, 3), (1.0, 1.0, 1)):
        for theta in (1.0, 0.3):
            out = run(JSMA(theta=theta, gamma=gamma), model, x, goal, L0(eps))
            assert bool((out.size <= most).all())
            assert int(out.size.max()) == most
    budgets = PerRow(torch.arange(40) % 5 + 1.0)
    out = run(JSMA(gamma=1.0), model, x, goal, L0(budgets))
    assert bool((out.size <= budgets.values).all())
    assert not bool((out.status == Status.INVALID).any())


def test_pixels_are_paid_for_once():
    model = Bent((3, 4, 4), 5, seed=4).eval()
    x = (1.5 * Rng.of(8, 40).uniform(3, 4, 4) - 0.25).clamp(0, 1)
    goal, threat = Untargeted(model(x).argmax(1)), L0(3.0, pixels=True)
    for gamma, most in ((1.0, 9), (5.5 / 48, 5), (4.5 / 48, 4)):
        out = run(JSMA(gamma=gamma), model, x, goal, threat)
        entries = (out.x_adv != x).flatten(1).sum(1)
        assert bool(threat.contains(out.x_adv, x).all())
        assert 3 < int(entries.max()) <= most
        assert not bool((out.status == Status.INVALID).any())


def test_what_may_not_change_does_not_pair():
    model, x = net(), inputs()
    mask = torch.arange(36).view(1, 6, 6) % 2 == 0
    out = run(JSMA(gamma=1.0), model, x, Untargeted(model(x).argmax(1)), L0(mask=Shared(mask)))
    assert bool(out.broken.any())
    assert bool((out.x_adv == x)[:, ~mask].all())


def test_small_steps_use_an_entry_again():
    """The paper leaves an entry out when it is at the end of its range, not when it was used (as cleverhans does)."""
    model, x = net(), inputs()
    out = run(JSMA(theta=0.2, gamma=0.3), model, x, Untargeted(model(x).argmax(1)), L0())
    step = (out.x_adv - x)[out.broken]
    assert float(step.max()) > 0.5
    want = torch.stack(
        [published(model, v, int(c), 0.2, 20.0, untargeted=True) for v, c in zip(x, model(x).argmax(1), strict=True)]
    )
    few = out.broken & ((want != x).flatten(1).sum(1) <= 8)  # the paper's loop there has no bound on entries
    assert int(few.sum()) > 3
    assert torch.equal(out.x_adv[few], want[few])


def test_two_backwards_for_a_step():
    model, x = net(classes=12), inputs()
    label = model(x).argmax(1)
    out = run(JSMA(gamma=0.6), model, x, Targeted(label, (label + 3) % 12), L0())
    assert bool((out.backwards == 2 * out.forwards).all() | (out.backwards <= 2 * out.forwards).all())
    assert int(out.forwards.max()) <= 36 * 0.6 / 2 + 2


def test_one_logit_needs_probabilities():
    model = OneLogit(nn.Sequential(nn.Flatten(), nn.Linear(36, 1)))
    x = inputs()
    goal = Untargeted(model(x).argmax(1))
    assert not bool(run(JSMA(gamma=1.0), model, x, goal, L0()).broken.any())
    assert bool(run(JSMA(gamma=1.0, probabilities=True), model, x, goal, L0()).broken.any())


def test_settings_that_make_no_sense_are_refused():
    model, x = net(), inputs()
    goal = Untargeted(model(x).argmax(1))
    for attack in (JSMA(theta=0.0), JSMA(gamma=0.0), JSMA(gamma=1.5)):
        with pytest.raises(InputError, match="theta"):
            run(attack, model, x, goal, L0())
    with pytest.raises(InputError, match="L0"):
        run(JSMA(), model, x, goal, Linf(0.1))


# --- maps to look at --------------------------------------------------------------------------------------------------


def test_the_map_is_that_of_the_formula():
    model, x = net(), inputs(3)
    target = torch.tensor([0, 3, 4])
    forward = jacobian(model, x)
    assert forward.shape == (3, 5, 1, 6, 6)
    for i, t in enumerate(target):
        want = torch.autograd.functional.jacobian(lambda v: model(v[None])[0], x[i])
        assert torch.allclose(forward[i], want, atol=1e-6)
        own, others = want[t], sum(want[j] for j in range(5) if j != t)
        up = saliency_map(forward, target)[i]
        assert torch.allclose(up, torch.where((own < 0) | (others > 0), 0.0, own * others.abs()), atol=1e-5)
        down = saliency_map(forward, target, down=True)[i]
        assert torch.allclose(down, torch.where((own > 0) | (others < 0), 0.0, own.abs() * others), atol=1e-5)
    assert not x.requires_grad
    assert all(p.grad is None for p in model.parameters())


def test_infinite_logits_are_summed_without_harm():
    logits = torch.tensor([[-torch.inf, 1.0, 2.0]])
    one = torch.ones(1, dtype=torch.long)
    assert Rivals()(logits, Targeted(one, one - 1)).tolist() == [[-torch.inf, 3.0]]
