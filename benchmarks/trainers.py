"""Hardening the same network on the same rows with ours, ART's trainers, and torchattacks in a loop: who gets further.

All train `zoo:cnn` from the same weights on the first --train rows of MNIST against Linf 0.1, for the same epochs, with
Adam at 0.001, and the last weights are what is judged: with `standard_v1`, on the first --rows test rows. ART's
`AdversarialTrainerFBFPyTorch` and ours are also compared on a network with batch norm and dropout, where it shows that
ART's leaves the network in eval mode for the whole training: the statistics of its batches are never gathered.

Needs the libraries in the group `peers` and mnist.npz in --data-dir.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from common import arguments, heading, timed
from torch import Tensor, nn

import adamant as am
from adamant.models import build
from adamant.runtime.knobs import Constant
from adamant.training import Adam, Job, Plan, fit

EPS, RATE = 0.1, 1e-3
STEPS, STEP = 7, 0.03  # of the inner attack, in units of the input


def by_adamant(model: nn.Module, train: am.DataSet, epochs: int, recipe: am.Recipe, *, low: bool = False) -> None:
    """Our own loop; validation is cut down to a single row, as the others have none. `low`: passes in bfloat16."""
    plan = Plan(
        epochs=epochs, batch_size=128, optimizer=Adam(RATE), shape=Constant(), select_rows=1, autocast=low,
        channels_last=low,
    )  # fmt: skip
    one = train.take(torch.arange(1))
    job = Job(model=model, data=train, validation=one, threat=am.Linf(EPS), recipe=recipe, plan=plan)
    last: dict[str, Tensor] = {}

    def keep(step: int, steps: int, _words: str) -> None:
        if step == steps:
            last.update({k: v.clone() for k, v in model.state_dict().items()})

    fit(Job(**{**vars(job), "watch": keep}))
    model.load_state_dict(last)


def by_torchattacks(model: nn.Module, train: am.DataSet, epochs: int, steps: int) -> None:
    """The loop that its users write: attack in eval mode, update in training mode."""
    import torchattacks

    attack = torchattacks.PGD(model, eps=EPS, alpha=STEP if steps > 1 else 1.25 * EPS, steps=steps)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    for epoch in range(epochs):
        order = torch.randperm(len(train.y), generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(128)[: len(train.y) // 128]:
            model.eval()
            z = attack(train.x[rows], train.y[rows])
            model.train()
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(z), train.y[rows]).backward()
            optimizer.step()


def by_art(model: nn.Module, train: am.DataSet, epochs: int, kind: str) -> None:
    """ART's trainers as its documentation writes them."""
    from art.attacks.evasion import ProjectedGradientDescent
    from art.defences.trainer import AdversarialTrainer, AdversarialTrainerFBFPyTorch
    from art.estimators.classification import PyTorchClassifier

    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    shape = tuple(train.x.shape[1:])
    classifier = PyTorchClassifier(model, nn.CrossEntropyLoss(), shape, 10, optimizer, clip_values=(0.0, 1.0))
    x, y = train.x.numpy(), nn.functional.one_hot(train.y, 10).numpy()
    if kind == "fast":
        trainer: Any = AdversarialTrainerFBFPyTorch(classifier, eps=EPS)
        trainer.fit(x, y, nb_epochs=epochs, batch_size=128)
    else:
        attack = ProjectedGradientDescent(
            classifier, eps=EPS, eps_step=STEP, max_iter=STEPS, num_random_init=1, batch_size=128, verbose=False
        )
        AdversarialTrainer(classifier, attack, ratio=1.0).fit(x, y, nb_epochs=epochs, batch_size=128)


class WithNorm(nn.Module):
    """A network whose training mode matters; ART cannot train a bare `Sequential` that begins with a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.BatchNorm2d(32),
            nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def with_norm() -> nn.Module:
    """The same weights each time."""
    torch.default_generator.manual_seed(0)
    return WithNorm()


def main() -> None:
    """Train all, judge all."""
    parser = arguments(__doc__)
    parser.add_argument("--train", type=int, default=12800)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[], help="names of contestants")
    args = parser.parse_args()
    if args.quick:
        args.train, args.rows, args.epochs = 2560, 100, 1
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    heading(f"Linf {EPS}, {args.train} rows of MNIST, {args.epochs} epochs, batches of 128, one thread, seed 0")
    train = am.load_data("mnist", split="train", limit=args.train, data_dir=args.data_dir)
    test = am.load_data("mnist", split="test", limit=args.rows, data_dir=args.data_dir)
    kl = am.PGD(steps=STEPS, rate=STEP / EPS, start=am.attacks.starts.Near(), loss=am.losses.KL())
    many, one = am.PGD(steps=STEPS, rate=STEP / EPS), am.PGD(steps=1, rate=1.25)
    first = build("cnn", shape=(1, 28, 28), classes=10, seed=0)
    e = args.epochs
    contestants: dict[str, tuple[nn.Module, Callable[[nn.Module], None]]] = {
        f"adamant madry, PGD-{STEPS}": (first, lambda m: by_adamant(m, train, e, am.recipes.madry(attack=many))),
        f"adamant madry, PGD-{STEPS}, bfloat16": (
            first, lambda m: by_adamant(m, train, e, am.recipes.madry(attack=many), low=True),
        ),
        f"adamant trades, PGD-{STEPS}, bfloat16": (
            first, lambda m: by_adamant(m, train, e, am.recipes.trades(attack=kl), low=True),
        ),
        f"torchattacks PGD-{STEPS} in a loop": (first, lambda m: by_torchattacks(m, train, e, STEPS)),
        f"ART AdversarialTrainer, PGD-{STEPS}": (first, lambda m: by_art(m, train, e, "madry")),
        "batch norm: adamant madry, one step": (
            with_norm(), lambda m: by_adamant(m, train, e, am.recipes.madry(attack=one)),
        ),
        "batch norm: torchattacks, one step, in a loop": (with_norm(), lambda m: by_torchattacks(m, train, e, 1)),
        "batch norm: ART AdversarialTrainerFBFPyTorch": (with_norm(), lambda m: by_art(m, train, e, "fast")),
    }  # fmt: skip
    by_adamant(
        copy.deepcopy(first), train.take(torch.arange(256)), 1, am.recipes.standard()
    )  # what loads lately, loads
    print(f"\n{'':48} {'CPU s':>7} {'clean':>7} {'robust':>7} {'batches normed':>15}")
    for name, (start, task) in contestants.items():
        if args.only and not any(part in name for part in args.only):
            continue
        model = copy.deepcopy(start).train()
        try:
            clock = timed(lambda task=task, model=model: task(model))
        except Exception as error:  # a contestant that breaks down is part of the result
            print(f"{name:48} {type(error).__name__}: {error}", flush=True)
            continue
        seen = next((int(m.num_batches_tracked) for m in model.modules() if isinstance(m, nn.BatchNorm2d)), None)
        found = am.audit(model.eval(), test, am.Linf(EPS)).summary()
        clean, robust = found["clean"]["accuracy"], found["robust"]["accuracy"]
        gathered = "" if seen is None else str(seen)
        print(f"{name:48} {clock.cpu:7.1f} {clean:7.1%} {robust:7.1%} {gathered:>15}", flush=True)


if __name__ == "__main__":
    main()
