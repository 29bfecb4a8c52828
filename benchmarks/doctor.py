"""Model by diagnostic: what the doctor says of healthy networks, and of networks with one planted defect each.

Healthy are the three reference networks on MNIST and two that this script trains, on CIFAR-10 and on traffic signs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator
from pathlib import Path

import torch
from common import arguments, heading, mnist, network
from planted import planted
from torch import nn

import adamant as am
from adamant.data import DataSet, load_data
from adamant.evaluation.doctor import Examination, Verdict, examine

SHOWN = {Verdict.PASS: ".", Verdict.WARN: "w", Verdict.FAIL: "F", Verdict.SKIPPED: " "}


def trained(name: str, folder: Path | None, epochs: int) -> tuple[nn.Module, DataSet]:
    """A small network of colour pictures, a few epochs of ordinary training."""
    train, test = (load_data(name, split=s, data_dir=folder) for s in ("train", "test"))
    if len(train) > 8000:
        train = train.take(torch.arange(8000))
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2048, 100), nn.ReLU(), nn.Linear(100, len(train.classes)),
    )  # fmt: skip
    best = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(train)).split(128):
            best.zero_grad()
            nn.functional.cross_entropy(net(train.x[rows]), train.y[rows]).backward()
            best.step()
    best.zero_grad()
    return net.eval(), test


def models(options) -> Generator[tuple[str, nn.Module, DataSet, float, tuple[str, ...]]]:
    """Name, model, data, eps, and the findings that must speak (none for the healthy)."""
    data = mnist(10_000, options.data_dir)
    for name, eps in (("mnist_cnn_pgd", 0.3), ("mnist_lenet5_adv", 0.3), ("mnist_lenet5_clean", 0.1)):
        yield f"{name}, {eps}", network(name, options.models_dir), data, eps, ()
    for name in ("cifar10_jpeg", "gtsrb_32"):
        net, test = trained(name, options.data_dir, 2 if options.quick else 4)
        for eps in (2 / 255, 8 / 255):
            yield f"{name}, {eps * 255:.0f}/255", net, test, eps, ()
    for name, (model, named) in planted(network("mnist_cnn_pgd", options.models_dir), data.x[:256]).items():
        yield name, model, data, 0.3, named
    net, claims = network("mnist_cnn_pgd", options.models_dir), ("D12",)
    yield "labels moved by one", net, dataclasses.replace(data, y=(data.y + 1) % 10), 0.3, claims
    yield "one-hot labels", net, dataclasses.replace(data, y=nn.functional.one_hot(data.y, 10)), 0.3, claims
    normal = dataclasses.replace(data, x=(data.x - 0.1307) / 0.3081)
    yield "normalised inputs", nn.Sequential(Undo(), net).eval(), normal, 0.3, ("D10",)
    yield "eps of 8, not 8/255", net, data, 8.0, ("D10",)


class Undo(nn.Module):
    """From normalised inputs to pictures."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n *d) -> (n *d)."""
        return x * 0.3081 + 0.1307


def main() -> None:
    """Print the table; leave with 1 for a false alarm or a defect that nothing named."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=256)
    options = parser.parse_args()
    heading("doctor: model by diagnostic (. pass, w warn, F fail, blank skipped)")
    wrong = 0
    for name, model, data, eps, named in models(options):
        began = time.process_time()
        found: Examination = examine(model, data, am.Linf(eps), rows=64 if options.quick else options.rows)
        spent = time.process_time() - began
        if not wrong and named == () and name.startswith("mnist_cnn_pgd"):
            print(f"{'':28s} {' '.join(f'{f.id:>3s}' for f in found.findings)}  passes   CPU s")
        loud = {f.id for f in found.findings if f.verdict >= Verdict.WARN}
        right = bool(loud & set(named)) if named else not loud
        wrong += not right
        marks = " ".join(f"{SHOWN[f.verdict]:>3s}" for f in found.findings)
        passes = (found.forwards + found.backwards) / found.rows
        print(f"{name:28s} {marks}  {passes:6.0f}  {spent:6.1f}{'' if right else '  <- WRONG'}", flush=True)
        for f in found.findings:
            if f.id in named or (not right and f.id in loud):
                print(f"{'':30s}{f.id} {f.verdict.name}: {f.measured}", flush=True)
    print(f"{wrong} wrong")
    raise SystemExit(int(wrong > 0))


if __name__ == "__main__":
    main()
