"""One surrogate made many: a network whose activations are eroded in another way at every input that it is asked."""

from __future__ import annotations

from itertools import count
from typing import Any, cast

import torch
from torch import Tensor, nn

from adamant.errors import InputError, ModelError
from adamant.random import Rng

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Ghost(nn.Module):
    """`net` with dropout of a share `drop` of what each linear or convolutional layer takes in, but for the first.

    Ghost networks by dropout erosion (Li et al., 2020, arXiv:1812.03413; 0.012 is theirs for plain networks), as a
    surrogate whose examples are to transfer. Which entries are dropped depends on the seed, on the layer and on the
    bits of the row: a row meets another ghost wherever it goes, one at a place, whatever the batch and the mode.
    The answer is the mean of the logits of so many ghosts.
    """

    def __init__(self, net: nn.Module, drop: float = 0.012, *, ghosts: int = 1, seed: int = 0) -> None:
        super().__init__()
        if not 0 <= drop < 1:
            raise InputError(f"drop is the share of activations that a ghost lacks, from 0 to below 1, got {drop}.")
        if ghosts < 1:
            raise InputError(f"There must be at least one ghost, got {ghosts}.")
        if sum(isinstance(m, _LAYERS) for m in net.modules()) < 2:
            raise InputError(
                "Ghost erodes what goes into linear and convolutional layers after the first, and finds fewer than two."
            )
        self.net, self.drop, self.ghosts, self.seed = net, drop, ghosts, seed

    def forward(self, x: Tensor) -> Tensor:
        rng = Rng(_fingerprint(x.detach())).fold(self.seed)
        return torch.stack([self._eroded(x, rng.fold(i)) for i in range(self.ghosts)]).mean(0)

    def _eroded(self, x: Tensor, rng: Rng) -> Tensor:
        turns = count()

        def erode(_layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
            turn, (v, *rest) = next(turns), inputs
            if not turn:
                return None
            if len(v) != len(x):
                raise ModelError(f"Ghost needs rows to stay rows: {len(x)} came in and {len(v)} reached a layer.")
            kept = rng.fold(turn).uniform(*v.shape[1:]) >= self.drop
            return (v * kept / (1 - self.drop), *rest)

        layers = [m for m in self.net.modules() if isinstance(m, _LAYERS)]
        handles = [layer.register_forward_pre_hook(erode) for layer in layers]
        try:
            return cast(Tensor, self.net(x))
        finally:
            for handle in handles:
                handle.remove()


def _fingerprint(x: Tensor) -> Tensor:
    """A number for each row that depends on all of its bits, and on nothing else, (n,) int64."""
    wide = x.dtype == torch.float64
    bits = (x if wide else x.float()).contiguous().view(torch.int64 if wide else torch.int32).flatten(1).long()
    place = Rng.of(0, bits.shape[1]).key.to(bits.device) | 1  # odd, so that every bit of an entry tells
    return (bits * place).sum(1)
