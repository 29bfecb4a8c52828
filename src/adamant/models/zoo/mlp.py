"""mlp: two hidden layers over the flattened input; the only member of the zoo that takes vectors."""

import math

from torch import nn


def mlp(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Flatten, then dense 256, 256, classes with ReLU (Rumelhart et al., 1986): (n *d) -> (n classes)."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, classes),
    )
