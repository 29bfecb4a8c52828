"""EachTarget by itself: the look that ranks the targets is not measured against the losses that are climbed."""

import torch
from torch import nn

from adamant.attacks import PGD, EachTarget, Union
from adamant.engine import run
from adamant.goals import Targeted, Untargeted
from adamant.losses import CrossEntropy
from adamant.threats import Linf


def test_what_is_kept_is_the_best_point_that_the_attack_itself_looked_at():
    """A margin of -1 at the input is above every cross-entropy toward a class of a hundred, and says nothing of it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 6))
    x = torch.rand(20, 1, 4, 4)
    y = net(x).argmax(1)
    attack, threat = PGD(steps=5, loss=CrossEntropy()), Linf(1e-3)
    out = run(EachTarget(attack, 3), net, x, Untargeted(y), threat)
    stands = ~out.broken
    assert stands.sum() > 15
    assert ((out.x_adv != x).flatten(1).any(1))[stands].all()
    logits = net(out.x_adv)
    each = torch.stack([CrossEntropy()(logits, Targeted(y, torch.full_like(y, c))) for c in range(6)], 1)
    each = each.scatter(1, y[:, None], -torch.inf)  # to each wrong class
    nearest = (each - out.loss[:, None]).abs().amin(1)
    assert (nearest[stands] < 1e-5).all()
    assert torch.equal(out.forwards[stands], torch.full_like(out.forwards[stands], 1 + 3 * 6))


def test_within_a_union_the_margin_measures_all():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 6))
    x = torch.rand(20, 1, 4, 4)
    y = net(x).argmax(1)
    out = run(Union(EachTarget(PGD(steps=5, loss=CrossEntropy()), 3)), net, x, Untargeted(y), Linf(1e-3))
    logits = net(out.x_adv).double()
    rival = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    assert torch.allclose(out.loss, rival - logits.gather(1, y[:, None])[:, 0], atol=1e-5)
