"""preact-resnet18: the pre-activation ResNet for small images that adversarial-training papers use most."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class PreActBlock(nn.Module):
    """Norm, ReLU, conv, twice, plus the input; the shortcut leaves after the first ReLU where the size changes."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(into)
        self.conv1 = nn.Conv2d(into, out, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        changes = stride != 1 or into != out
        self.shortcut = nn.Sequential(nn.Conv2d(into, out, 1, stride=stride, bias=False)) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(out)
        return self.conv2(functional.relu(self.bn2(self.conv1(out)))) + kept


class PreActResNet18(nn.Module):
    """He et al. (2016, arXiv:1603.05027), in the form and with the keys of Rice et al. (2020): (n c h w) -> (n k)."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(shape[0], 64, 3, padding=1, bias=False)
        self.layer1 = nn.Sequential(PreActBlock(64, 64, 1), PreActBlock(64, 64, 1))
        self.layer2 = nn.Sequential(PreActBlock(64, 128, 2), PreActBlock(128, 128, 1))
        self.layer3 = nn.Sequential(PreActBlock(128, 256, 2), PreActBlock(256, 256, 1))
        self.layer4 = nn.Sequential(PreActBlock(256, 512, 2), PreActBlock(512, 512, 1))
        self.bn = nn.BatchNorm2d(512)
        self.linear = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        return self.linear(functional.relu(self.bn(x)).mean((2, 3)))
