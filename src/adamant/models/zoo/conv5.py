"""conv5: five convolutions with batch norm and SiLU, small enough to be hardened on a processor without a GPU."""

from __future__ import annotations

from torch import nn


def conv5(shape: tuple[int, ...], classes: int, *, wide: int = 32) -> nn.Module:
    """Convolutions 3x3 of 32, 64, 64, 128 and 128 channels, two of stride 2, then the mean over places.

    (n c h w) -> (n classes). SiLU rather than ReLU, for adversarial training (Gowal et al., 2020, arXiv:2010.03593).
    """
    layers: list[nn.Module] = []
    before = shape[0]
    for factor, stride in ((1, 1), (2, 2), (2, 1), (4, 2), (4, 1)):
        now = factor * wide
        layers += [nn.Conv2d(before, now, 3, stride, padding=1, bias=False), nn.BatchNorm2d(now), nn.SiLU()]
        before = now
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))
