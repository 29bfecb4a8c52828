"""cnn: the small strided net of the MNIST experiments of provable defences and fast adversarial training."""

from torch import nn


def cnn(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Two convolutions 4x4 of stride 2, then two dense layers: (n c h w) -> (n classes).

    The state dict has the keys of Wong et al. (2020, arXiv:2001.03994): `0.`, `2.`, `5.`, `7.`.
    """
    c, h, w = shape
    return nn.Sequential(
        nn.Conv2d(c, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * (h // 4) * (w // 4), 100),
        nn.ReLU(),
        nn.Linear(100, classes),
    )
