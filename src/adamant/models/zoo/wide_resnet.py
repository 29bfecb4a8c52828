"""wrn-28-10 and wrn-16-4: wide residual networks, the large nets of the robustness leaderboards."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class WideBlock(nn.Module):
    """Norm, ReLU, conv, twice, plus the input; a 1x1 convolution carries the input where its size changes."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(into)
        self.conv1 = nn.Conv2d(into, out, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.convShortcut = nn.Conv2d(into, out, 1, stride=stride, bias=False) if into != out else None

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(x))
        kept = x if self.convShortcut is None else self.convShortcut(out)
        return self.conv2(functional.relu(self.bn2(self.conv1(out)))) + kept


class WideGroup(nn.Module):
    """Several blocks of one width; the first changes the width and the size."""

    def __init__(self, into: int, out: int, blocks: int, stride: int) -> None:
        super().__init__()
        made = [WideBlock(into if i == 0 else out, out, stride if i == 0 else 1) for i in range(blocks)]
        self.layer = nn.Sequential(*made)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class WideResNet(nn.Module):
    """Zagoruyko & Komodakis (2016, arXiv:1605.07146), with the keys of TRADES and RobustBench: (n c h w) -> (n k)."""

    def __init__(self, shape: tuple[int, ...], classes: int, *, depth: int, widen: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(shape[0], 16, 3, padding=1, bias=False)
        self.block1 = WideGroup(16, 16 * widen, blocks, 1)
        self.block2 = WideGroup(16 * widen, 32 * widen, blocks, 2)
        self.block3 = WideGroup(32 * widen, 64 * widen, blocks, 2)
        self.bn1 = nn.BatchNorm2d(64 * widen)
        self.fc = nn.Linear(64 * widen, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(functional.relu(self.bn1(x)).mean((2, 3)))
