"""Optimisers: what decays, what learns, and torch's own beneath them."""

import pytest
import torch
from torch import nn

from adamant.errors import InputError
from adamant.runtime.optimizers import SGD, Adam


def net(seed: int = 0) -> nn.Sequential:
    torch.default_generator.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize("optimizer", [Adam(0.01), SGD(0.05), SGD(0.05, momentum=0.0)])
def test_weights_decay_and_biases_do_not(optimizer) -> None:
    model = net()
    built = optimizer.build(model, 0.3)
    decay = {id(p): g["weight_decay"] for g in built.param_groups for p in g["params"]}
    assert {decay[id(p)] for p in model.parameters() if p.ndim > 1} == {0.3}
    assert {decay[id(p)] for p in model.parameters() if p.ndim <= 1} == {0.0}
    assert all(g["lr"] == optimizer.rate for g in built.param_groups)


def test_frozen_weights_are_left_out() -> None:
    model = net()
    model[0].requires_grad_(False)
    held = [p for g in SGD().build(model, 0.0).param_groups for p in g["params"]]
    assert all(p.requires_grad for p in held)
    assert len(held) == 4
    model.requires_grad_(False)
    with pytest.raises(InputError, match="no parameter that may be trained"):
        Adam().build(model, 0.0)


def test_adam_has_the_betas_that_it_is_given() -> None:
    for member, betas in ((Adam(0.01), (0.9, 0.999)), (Adam(0.01, (0.5, 0.9)), (0.5, 0.9))):
        ours, theirs = net(), net()
        one, other = member.build(ours, 0.0), torch.optim.AdamW(theirs.parameters(), 0.01, betas, weight_decay=0.0)
        for step in range(3):
            x = torch.rand(6, 5, generator=torch.Generator().manual_seed(step))
            for model, optimizer in ((ours, one), (theirs, other)):
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b)
