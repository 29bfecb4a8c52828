"""Averages of weights against loops by hand."""

import pytest
import torch
from torch import nn

from adamant.random import Rng
from adamant.runtime.average import EMA, SWA, update


def net(seed: int = 0) -> nn.Sequential:
    torch.default_generator.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def test_the_average_is_that_of_a_loop_by_hand() -> None:
    model = net()
    mean = {k: v.detach().clone() for k, v in model.state_dict().items()}
    by_hand = {k: v.double() for k, v in mean.items()}
    for step in range(40):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(step)))
        model(
            torch.rand(6, 5, generator=torch.Generator().manual_seed(step))
        )  # moves the running statistics and their counter
        update(EMA(0.7), mean, model, step, 40)
        decay = min(0.7, (1 + step) / (10 + step))
        for k, v in model.state_dict().items():
            by_hand[k] = decay * by_hand[k] + (1 - decay) * v.double() if v.is_floating_point() else v.double()
    for k, v in mean.items():
        assert torch.allclose(v.double(), by_hand[k], atol=1e-5), k
    assert mean["1.num_batches_tracked"] == 40
    assert mean["1.running_mean"].abs().max() > 0
    assert not mean["0.weight"].requires_grad


def test_the_average_warms_up() -> None:
    model = nn.Linear(1, 1, bias=False)
    mean = {"weight": torch.zeros(1, 1)}
    nn.init.ones_(model.weight)
    update(EMA(0.999), mean, model, 0, 1)
    assert mean["weight"].item() == pytest.approx(0.9)  # 1 - (1 + 0) / (10 + 0)
    mean["weight"].zero_()
    update(EMA(0.999), mean, model, 10**6, 1)
    assert mean["weight"].item() == pytest.approx(0.001, rel=1e-3)


@pytest.mark.parametrize("start", [0.0, 0.25, 0.75, 0.99])
def test_swa_is_the_plain_mean_of_what_came_from_its_start_on(start) -> None:
    model, steps, seen = net().double().eval(), 20, []
    mean = {k: v.detach().clone() for k, v in model.state_dict().items()}
    for step in range(steps):
        with torch.no_grad():
            for i, p in enumerate(model.parameters()):
                p.add_(Rng.of(step, 1).fold(i).normal(*p.shape)[0].double())
        seen.append({k: v.detach().clone() for k, v in model.state_dict().items()})
        update(SWA(start), mean, model, step, steps)
        counted = seen[int(-(-start * steps // 1)) :] or seen[-1:]  # until its start, the network itself
        for k, v in mean.items():
            assert torch.allclose(v.double(), torch.stack([s[k] for s in counted]).double().mean(0), atol=1e-12)


def test_a_mean_of_some_weights_leaves_the_others_alone() -> None:
    model = net()
    mean = {"0.weight": torch.zeros_like(model[0].weight)}
    update(EMA(0.999), mean, model, 0, 1)
    assert set(mean) == {"0.weight"}
    assert torch.allclose(mean["0.weight"], 0.9 * model[0].weight)
