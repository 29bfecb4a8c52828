"""SigmaZero against the published algorithm, step by step, and against the figures of another library."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from adamant.access import Sight
from adamant.attacks.sigma_zero import SigmaZero
from adamant.batch import Shared
from adamant.engine import run
from adamant.errors import InputError
from adamant.goals import Targeted, Untargeted
from adamant.losses import Margin
from adamant.random import Rng
from adamant.testing import Affine, Bent
from adamant.threats import L0, L2

STEPS = 40


def net(dtype=torch.float64, classes=5):
    return Bent((1, 6, 6), classes, seed=4, dtype=dtype).eval()


def inputs(rows=12, dtype=torch.float64):
    return (1.5 * Rng.of(8, rows).uniform(1, 6, 6, dtype=dtype) - 0.25).clamp(0, 1)


def published(model, x, of, steps=STEPS, *, targeted=False):
    """The algorithm of the paper with torch's own Adam and cosine: all points that it looks at."""
    delta = torch.zeros_like(x, requires_grad=True)
    adam = torch.optim.Adam([delta], lr=1.0)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=steps, eta_min=0.1)
    threshold, points = torch.full((len(x), 1, 1, 1), 0.3, dtype=x.dtype), []
    for _ in range(steps + 1):
        points.append((x + delta).detach())
        logits = model(x + delta)
        own, other = logits.gather(1, of[:, None])[:, 0], logits.scatter(1, of[:, None], -torch.inf).amax(1)
        fooled = (logits.argmax(1) == of) == targeted
        margin = (other - own if targeted else own - other).clamp(min=0)
        loss = margin + (delta**2 / (delta**2 + 0.001)).flatten(1).mean(1)
        (slope,) = torch.autograd.grad(loss.sum(), delta)
        delta.grad = slope / slope.flatten(1).abs().amax(1).clamp_min(1e-300).view(-1, 1, 1, 1)
        adam.step()
        rate.step()
        with torch.no_grad():
            delta.copy_((x + delta).clamp(0, 1) - x)
            threshold += torch.where(fooled, 0.01, -0.01).view(-1, 1, 1, 1) * rate.get_last_lr()[0]
            threshold.clamp_(0, 1)
            delta[delta.abs() < threshold] = 0
    return torch.stack(points)


@dataclass(frozen=True)
class Recorded:
    """SigmaZero, with a list of the points that it looks at."""

    attack: SigmaZero
    points: list
    needs: ClassVar[Sight] = Sight.GRADIENT
    minimal: ClassVar[bool] = True

    @property
    def steps(self):
        return self.attack.steps

    @property
    def loss(self):
        return self.attack.loss

    def init(self, p):
        s = self.attack.init(p)
        self.points.append(s.z)
        return s

    def step(self, p, s, seen, t):
        s = self.attack.step(p, s, seen, t)
        self.points.append(s.z)
        return s


@pytest.mark.parametrize("targeted", [False, True])
def test_every_point_is_that_of_the_published_algorithm(targeted):
    model, x = net(), inputs()
    label = model(x).argmax(1)
    of = (label + 1) % 5 if targeted else label
    points = []
    out = run(
        Recorded(SigmaZero(steps=STEPS), points), model, x, Targeted(label, of) if targeted else Untargeted(of), L0()
    )
    want = published(model, x, of, targeted=targeted)
    assert torch.allclose(torch.stack(points), want, atol=1e-9)
    hits = torch.stack([(model(z).argmax(1) == of) == targeted for z in want])
    size = (want != x).flatten(2).sum(2).double().where(hits, torch.inf).amin(0)
    assert torch.equal(out.size[out.broken], size[out.broken])
    assert torch.equal(out.broken, size.isfinite())
    assert int(out.broken.sum()) == 12


def test_putting_little_changes_back_is_what_makes_it_sparse():
    model, x = net(), inputs()
    goal = Untargeted(model(x).argmax(1))
    it, none = (run(a, model, x, goal, L0()) for a in (SigmaZero(steps=40), SigmaZero(steps=40, threshold=0, adapt=0)))
    assert float(it.size.sum()) < float(none.size.sum()) / 2


def test_an_affine_network_falls_with_the_fewest_entries():
    """Two classes: the entries with the largest gain are the optimum in closed form."""
    model = Affine((30,), 2, seed=3)
    x = Rng.of(1, 40).uniform(30)
    label = model(x).argmax(1)
    w = (model.weight[1] - model.weight[0]) * torch.where(label == 0, 1.0, -1.0)[:, None]
    gain = (w * torch.where(w > 0, 1 - x, -x)).sort(1, descending=True).values.cumsum(1).detach()
    logits = model(x).detach()
    gap = (logits.amax(1) - logits.amin(1))[:, None]
    optimum = (gain <= gap).sum(1) + 1
    out = run(SigmaZero(steps=300), model, x, Untargeted(label), L0())
    can = optimum <= 30
    assert torch.equal(out.broken, can)
    assert bool((out.size >= optimum)[can].all())
    assert bool((out.size <= optimum + 1)[can].all())
    assert float((out.size == optimum)[can].double().mean()) >= 0.8


def test_other_units_are_the_same_search():
    model, x = net(), inputs()
    goal = Untargeted(model(x).argmax(1))

    class Wide(torch.nn.Module):
        def forward(self, z):
            return model((z + 4) / 16)

    a = run(SigmaZero(steps=STEPS), model, x, goal, L0())
    b = run(SigmaZero(steps=STEPS), Wide(), 16 * x - 4, goal, L0(box=(-4.0, 12.0)))
    assert torch.equal(a.size, b.size)


def test_rows_do_not_depend_on_their_batch_and_a_budget_ends_them_early():
    """adv_lib's rows differ by 0.06 with their batch, as a mean of the losses is taken over it."""
    model, x = net(torch.float32), inputs(20, torch.float32)
    goal = Untargeted(model(x).argmax(1))
    whole = run(SigmaZero(steps=STEPS), model, x, goal, L0())
    one = run(SigmaZero(steps=STEPS), model, x[3:4], Untargeted(goal.label[3:4]), L0())
    assert torch.equal(whole.x_adv[3:4], one.x_adv)
    budget = run(SigmaZero(steps=STEPS), model, x, goal, L0(6.0))
    assert torch.equal(budget.broken, whole.size <= 6)
    assert int(budget.forwards.sum()) < int(whole.forwards.sum())


def test_what_may_not_change_stays():
    model, x = net(), inputs()
    mask = torch.arange(36).view(1, 6, 6) % 3 > 0
    out = run(SigmaZero(steps=STEPS), model, x, Untargeted(model(x).argmax(1)), L0(mask=Shared(mask)))
    assert bool(out.broken.any())
    assert bool((out.x_adv == x)[:, ~mask].all())


def test_it_counts_entries():
    model, x = net(), inputs()
    with pytest.raises(InputError, match="L0"):
        run(SigmaZero(loss=Margin()), model, x, Untargeted(model(x).argmax(1)), L2())
