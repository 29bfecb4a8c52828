"""lenet and lenet5: the two small nets with max-pooling that most tutorials and toolkits start from."""

from torch import Tensor, nn
from torch.nn import functional


def lenet(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Conv 6 and 16 of 5x5 with pooling, dense 120 and 84 (after LeCun et al., 1998): (n c h w) -> (n classes).

    Inputs with a side below 16 are padded by 2 at each convolution, or nothing would be left of them.
    """
    c, h, w = shape
    padding = 2 if min(h, w) < 16 else 0

    def left(side: int) -> int:
        return ((side - 4 + 2 * padding) // 2 - 4 + 2 * padding) // 2

    return nn.Sequential(
        nn.Conv2d(c, 6, 5, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * left(h) * left(w), 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )


class LeNet5(nn.Module):
    """The LeNet5 of AdverTorch (Ding et al., 2019, arXiv:1902.07623), whose trained weights fit: (n c h w) -> (n k)."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        c, h, w = shape
        self.conv1 = nn.Conv2d(c, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.linear1 = nn.Linear(64 * (h // 4) * (w // 4), 200)
        self.linear2 = nn.Linear(200, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        return self.linear2(functional.relu(self.linear1(x.flatten(1))))
