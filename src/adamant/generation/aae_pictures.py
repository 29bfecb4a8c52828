"""Pictures of an adversarial autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adamant.generation.base import Material
from adamant.random import Rng

if TYPE_CHECKING:
    from adamant.generation.aae import AAE


def show(game: AAE, networks: nn.Module, material: Material, seed: int) -> Tensor:
    """Samples, 10 classes in turn."""
    device = next(networks.parameters()).device
    rng = Rng.of(seed, 100).to(device).fold("show")
    y = torch.arange(100, device=device) % material.classes if game.conditional else None
    return game.sample(networks, rng, y)
