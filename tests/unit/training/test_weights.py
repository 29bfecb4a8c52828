"""Weights that move for a gradient and come back, and the plain mean of them: against derivations of a few lines."""

import copy
from dataclasses import replace

import pytest
import torch
from tests.unit.training.toys import DIGITS, EPS, PLAN, TRAIN, VALID, digits_net, ends, rows, smooth, train
from torch import nn
from torch.nn import functional as F

from adamant.attacks import FGSM, PGD
from adamant.calling import untouched
from adamant.random import Rng, blend
from adamant.runtime.average import SWA
from adamant.runtime.checkpoint import Progress
from adamant.runtime.knobs import Constant
from adamant.runtime.optimizers import SGD
from adamant.shards import Shard
from adamant.training import recipes, teacher
from adamant.training.fit import fit
from adamant.training.step import Forge, Job
from adamant.training.weights import AWP, SAM, moved

QUICK = PGD(steps=2, rate=0.6)
PLAIN = replace(PLAN, batch_size=16, optimizer=SGD(0.1, momentum=0.0), shape=Constant(), l2=0.0)


def job(recipe, model: nn.Module, **settings) -> Job:
    data = DIGITS.take(torch.arange(64))
    made = {"data": data, "validation": VALID, "threat": EPS, "recipe": recipe, "plan": PLAIN, **settings}
    return Job(model=model, **made)


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    x, y = rows()
    found = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
    return dict(zip((n for n, _ in model.named_parameters()), found, strict=True))


# ---- where they go


def test_awp_moves_each_layer_a_share_of_its_norm() -> None:
    model = smooth()
    by = AWP(0.01).offset(model, lambda: gradients(model), 0.0)
    assert set(by) == {"0.weight", "2.weight"}  # no biases
    for name, g in gradients(model).items():
        if name in by:
            w = dict(model.named_parameters())[name]
            assert torch.allclose(by[name], 0.01 * w.norm() * g / g.norm(), rtol=1e-5)
            assert by[name].norm().item() == pytest.approx(0.01 * w.norm().item(), rel=1e-5)


def test_sam_moves_all_weights_together() -> None:
    model = smooth()
    by = SAM(0.05).offset(model, lambda: gradients(model), 0.0)
    whole = torch.cat([g.flatten() for g in gradients(model).values()])
    assert torch.allclose(torch.cat([v.flatten() for v in by.values()]), 0.05 * whole / whole.norm(), rtol=1e-5)


@pytest.mark.parametrize("weights", [AWP(start=0.5), SAM(start=0.5)], ids=repr)
def test_before_their_start_they_stay_and_cost_nothing(weights) -> None:
    asked = []

    def ask() -> dict[str, torch.Tensor]:
        asked.append(1)
        return gradients(smooth())

    assert weights.offset(smooth(), ask, 0.49) == {}
    assert not asked
    assert weights.offset(smooth(), ask, 0.5)


@pytest.mark.parametrize("weights", [AWP(), SAM()], ids=repr)
def test_no_gradient_is_no_direction(weights) -> None:
    model = smooth()
    by = weights.offset(model, lambda: {n: torch.zeros_like(p) for n, p in model.named_parameters()}, 0.0)
    assert all(not v.any() for v in by.values())


def test_weights_come_back_bit_for_bit_whatever_happens() -> None:
    model = smooth()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    by = {"0.weight": torch.full_like(model[0].weight, 1e8)}  # adding and subtracting would lose every bit

    def interrupted() -> None:
        with moved(model, by):
            assert model[0].weight.min() > 1e7
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


# ---- the step


@pytest.mark.parametrize("weights", [AWP(0.05), SAM(0.1)], ids=repr)
def test_the_step_follows_the_gradient_from_there_and_starts_from_here(weights) -> None:
    """One step of a network with batch normalisation, by hand; its statistics move once, with the weights moved."""
    recipe = recipes.mixed(attack=QUICK)
    recipe = replace(recipe, weights=weights)
    model, by_hand = digits_net(norm=True), digits_net(norm=True)
    given = job(recipe, model)
    forge, progress = Forge.of(given, Shard()), Progress()
    batch, _ = forge.draw(0)
    with untouched(by_hand, seed=blend(0, 0)):
        z = recipe.inner(by_hand, batch, EPS, {})["adv"]
    forge.step(progress)

    def loss(net: nn.Module) -> torch.Tensor:
        return F.cross_entropy(net(batch.x), batch.y) + F.cross_entropy(net(z), batch.y)

    probe = copy.deepcopy(by_hand).train()
    names = [n for n, _ in probe.named_parameters()]
    first = dict(zip(names, torch.autograd.grad(loss(probe), list(probe.parameters())), strict=True))
    by_hand.train()
    there = copy.deepcopy(by_hand)
    length = torch.stack([g.norm() for g in first.values()]).norm()
    with torch.no_grad():
        for n, p in there.named_parameters():
            if isinstance(weights, SAM):
                p.add_(0.1 * first[n] / length)
            elif p.ndim > 1:
                p.add_(0.05 * p.norm() * first[n] / first[n].norm())
    second = dict(zip(names, torch.autograd.grad(loss(there), list(there.parameters())), strict=True))
    for n, p in by_hand.named_parameters():
        assert torch.allclose(dict(model.named_parameters())[n], p - 0.1 * second[n], atol=1e-6), n
    for n, b in there.named_buffers():
        assert torch.allclose(dict(model.named_buffers())[n], b, atol=1e-6), n
    assert int(model[2].num_batches_tracked) == 2  # once for each view


@pytest.mark.parametrize("make", recipes.CATALOGUE, ids=lambda m: m.__name__)
@pytest.mark.parametrize("weights", [AWP(), SAM()], ids=lambda w: type(w).__name__)
def test_they_combine_with_every_recipe(make, weights, monkeypatch) -> None:
    """With no learning rate nothing may move but statistics, and these once for each view."""
    monkeypatch.setattr(teacher.Teacher, "__call__", lambda self, x: x.flatten(1)[:, :10])
    monkeypatch.setattr(teacher.Teacher, "digest", "0" * 64)
    recipe = replace(make(), weights=weights)
    model = digits_net(norm=True, wide=8)
    before = [p.detach().clone() for p in model.parameters()]
    given = job(
        recipe, model, plan=replace(PLAIN, optimizer=SGD(0.0, momentum=0.0)), data=DIGITS.take(torch.arange(16))
    )
    forge, progress = Forge.of(given, Shard()), Progress()
    for part in (p for p in (recipe.inner,) if hasattr(p, "refresh")):
        part.refresh(model.eval(), given.data.x, given.data.y, EPS, Rng.of(0, 16), progress.memory)
    forge.step(progress)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    asked = 1 if recipe.joint else len(recipe.views) + (recipe.name == "gradalign")  # which looks beside the input, too
    assert int(model[2].num_batches_tracked) == asked
    plain = replace(make(), weights=None)
    assert recipe.cost - plain.cost == plain.cost - plain.inner.cost


def test_moving_uphill_flattens() -> None:
    """What AWP is for: the loss rises less where the weights are moved (at its own gamma, on training rows)."""

    def rise(model: nn.Module) -> float:
        model.zero_grad()
        loss = F.cross_entropy(model(TRAIN.x), TRAIN.y)
        names = dict(model.named_parameters())
        found = dict(zip(names, torch.autograd.grad(loss, list(names.values())), strict=True))
        with moved(model, AWP(0.1).offset(model, lambda: found, 1.0)), torch.no_grad():
            return float(F.cross_entropy(model(TRAIN.x), TRAIN.y) - loss)

    plan = replace(PLAN, select=FGSM())
    assert rise(train(recipes.madry(attack=QUICK, weights=AWP(0.05)), plan=plan)) < 0.8 * rise(
        train(recipes.madry(attack=QUICK), plan=plan)
    )


@pytest.mark.parametrize("weights", [AWP(start=0.4), SAM()], ids=lambda w: type(w).__name__)
def test_killed_in_the_middle_of_an_epoch(weights, tmp_path) -> None:
    recipe = recipes.madry(attack=QUICK, weights=weights, average=SWA(0.3))
    whole = ends(recipe, None)
    with pytest.raises(KeyboardInterrupt):
        ends(recipe, tmp_path, stop=4)
    assert ends(recipe, tmp_path, resume=True, seed=9) == whole


# ---- the plain mean


def test_swa_ends_a_run_as_the_mean_by_hand() -> None:
    """Of weights and running statistics; counters are the latest."""
    model, seen = digits_net(norm=True, wide=8), []
    recipe = recipes.madry(attack=QUICK, average=SWA(0.5))

    def watch(step: int, steps: int, text: str) -> None:
        if text.startswith("loss"):
            seen.append({k: v.detach().clone() for k, v in model.state_dict().items()})

    plan = replace(PLAIN, epochs=1)
    fit(job(recipe, model, plan=plan, watch=watch))
    assert len(seen) == 4
    for k, v in model.state_dict().items():
        late = torch.stack([s[k] for s in seen[2:]])
        assert torch.allclose(
            v.double(), (late.double().mean(0) if v.is_floating_point() else late[-1].double()), atol=1e-6
        )
