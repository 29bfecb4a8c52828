"""cnn: the small strided net of the MNIST experiments of provable defences and fast adversarial training."""

from __future__ import annotations

from torch import nn


class Threshold(nn.Conv2d):
    """The affine half of a soft threshold, steepness x (pixel - level), channel by channel; a sigmoid follows.

    Adversarially trained networks learn such filters by themselves (Madry et al., 2018, arXiv:1706.06083, appendix C);
    beginning with them saves most of the training. Steepness and level are learnt on.
    """

    def __init__(self, channels: int, *, steepness: float = 30.0, level: float = 0.5) -> None:
        super().__init__(channels, channels, 1, groups=channels)
        self.steepness, self.level = steepness, level

    def preset(self) -> None:
        """The weights that it begins with."""
        assert self.bias is not None
        self.weight.fill_(self.steepness)
        self.bias.fill_(-self.steepness * self.level)


def cnn(
    shape: tuple[int, ...], classes: int, *, wide: int = 16, dense: int = 100, threshold: bool = False
) -> nn.Module:
    """Two convolutions 4x4 of stride 2, then two dense layers: (n c h w) -> (n classes).

    As it comes, the state dict has the keys of Wong et al. (2020, arXiv:2001.03994): `0.`, `2.`, `5.`, `7.`.
    """
    c, h, w = shape
    stem: list[nn.Module] = [Threshold(c), nn.Sigmoid()] if threshold else []
    return nn.Sequential(
        *stem,
        nn.Conv2d(c, wide, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(wide, 2 * wide, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * wide * (h // 4) * (w // 4), dense),
        nn.ReLU(),
        nn.Linear(dense, classes),
    )
