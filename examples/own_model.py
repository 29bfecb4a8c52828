"""Audit a model of your own: any torch module that takes inputs in [0, 1] and returns logits."""

import torch
from torch import Tensor, nn

import adamant as am
from adamant.evaluation import QUICK


class Mine(nn.Module):
    """It normalises its input inside, so that budgets are in units of the picture."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers((x - self.mean) / self.std)


train, test = am.load_data("digits", split="train"), am.load_data("digits", split="test")
torch.manual_seed(0)  # noqa: TID251  (your script, your generator; the package has none)
model = Mine(float(train.x.mean()), float(train.x.std()))

# Your own training loop; adamant has no part in it.
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for _ in range(20):
    for rows in torch.randperm(len(train)).split(64):
        loss = nn.functional.cross_entropy(model(train.x[rows]), train.y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

# `data` may also be a pair of tensors: am.audit(model, (x, y), ...). The folder is optional.
audit = am.audit(model, test, am.Linf(0.1), suite=QUICK, out="runs/own-model")
found = audit.summary()
for line in ("clean", "robust"):
    share = found[line]
    print(f"{line} accuracy {share['accuracy']:.1%}, 95 % interval {share['low']:.1%} to {share['high']:.1%}")
for stage in found["stages"]:
    print(f"{stage['attack']} broke {stage['broke']} of the {stage['entered']} digits that stood before it")
print(f"statuses: {found['statuses']}")
print("The page: runs/own-model/report.html")
