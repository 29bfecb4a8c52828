"""Initial weights that depend on a seed and the parameter's name alone, and leave torch's generator untouched."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from adamant.random import Rng

_SCALES = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)


@runtime_checkable
class Preset(Protocol):
    """A layer that says itself how its weights begin."""

    def preset(self) -> None: ...


@torch.no_grad()
def fill(net: nn.Module, seed: int) -> None:
    """Fill every parameter and buffer of a net of convolutions, dense layers and norms.

    Weights are uniform with variance 2 / fan-in (He et al., 2015, arXiv:1502.01852), biases zero, norms the identity.
    Uniform rather than normal, for its arithmetic is exact: the same seed gives the same bits on every machine.
    """
    for path, module in net.named_modules():
        if isinstance(module, Preset):
            module.preset()
        elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            fan_in = _fan_in(module)
            name = f"{path}.weight"
            draw = Rng.of(seed, 1).fold(name).uniform(*module.weight.shape)[0]
            module.weight.copy_(draw.mul_(2).sub_(1).mul_(math.sqrt(6 / fan_in)))
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, _SCALES):
            module.weight.fill_(1)
            module.bias.zero_()
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.reset_running_stats()


def _fan_in(module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> float:
    """How many inputs an output is the sum of."""
    if isinstance(module, nn.ConvTranspose2d):  # its outputs overlap so many times
        return module.in_channels * math.prod(module.kernel_size) / math.prod(module.stride)
    return math.prod(module.weight.shape[1:])


def materialise(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build on the meta device, where nothing is drawn and nothing allocated, then give it memory and fill it."""
    with torch.device("meta"):
        net = make()
    net = net.to_empty(device="cpu")
    fill(net, seed)
    return net


def count_parameters(model: nn.Module) -> int:
    """How many numbers the model's parameters hold; a parameter that two layers share counts once."""
    return sum(p.numel() for p in model.parameters())
