"""Initial weights for training by interval bounds."""

from __future__ import annotations

import math

import torch
from torch import nn

from adamant.models.init import Preset
from adamant.random import Rng


@torch.no_grad()
def initialise_for_bounds(model: nn.Module, seed: int = 0) -> None:
    """Normal weights of deviation sqrt(2 pi) / fan-in, zero biases (Shi et al., 2021, arXiv:2103.17268), in place.

    Then intervals keep their width from layer to layer of a ReLU network at first, instead of growing with each.
    Convolutions and dense layers change, keyed by the seed and their names; the rest of the model stays, and so do
    layers that say themselves how they begin.
    """
    for name, module in model.named_modules():
        if isinstance(module, Preset):
            continue
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            fan_in = math.prod(module.weight.shape[1:])
            draw = Rng.of(seed, 1).fold(f"{name}.weight").normal(*module.weight.shape)[0]
            module.weight.copy_(draw.mul_(math.sqrt(2 * math.pi) / fan_in))
            if module.bias is not None:
                module.bias.zero_()
