"""small-cnn: the one-convolution net of the TensorFlow tutorials, conv32-pool-flatten-dense."""

from torch import nn


def small_cnn(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Conv 3x3 to 32 maps without padding, ReLU, max-pool 2, flatten, dense: (n c h w) -> (n classes)."""
    c, h, w = shape
    return nn.Sequential(
        nn.Conv2d(c, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * ((h - 2) // 2) * ((w - 2) // 2), classes),
    )
