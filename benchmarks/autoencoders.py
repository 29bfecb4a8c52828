"""What adversarial autoencoders come to on MNIST and Fashion-MNIST, one command for each figure.

`python benchmarks/autoencoders.py rebuild` trains without labels and prints the error of rebuilding and the two-sample
test of the codes; `told` asks for classes, `petals` gives each class its part of the prior, `guessed` learns from 100
labels, and `clusters` from none. Settings were chosen on validation rows, cut from the training split; the
figures are of test rows, which are looked at once, at the end. Nothing stops or chooses early: the last weights count.
--pictures FOLDER writes what one can look at.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from common import arguments, heading, network
from torch import nn

import adamant as am
from adamant.data import DataSet
from adamant.evaluation.counting import share
from adamant.generation.aae import AAE, Rates
from adamant.generation.aae_labels import Clustered, Guessed, Placed, Told
from adamant.generation.aae_measures import agreement, encoded, in_batches, latent, names, reconstruction
from adamant.generation.base import Material
from adamant.generation.fit import Match, Play, Played, fit
from adamant.generation.judge import train_judge
from adamant.generation.nets import DCGAN
from adamant.generation.pictures import Grid, sheet
from adamant.generation.priors import Gaussian, Ring
from adamant.runtime.augment import Crop, Rotate
from adamant.runtime.knobs import OneCycle


@dataclass(frozen=True, kw_only=True)
class Case:
    """A game, and how long it is played."""

    game: AAE
    steps: int
    batch_size: int = 128


CASES = {
    "rebuild": Case(game=AAE(prior=Gaussian(dim=10)), steps=4000),
    "told": Case(game=AAE(prior=Gaussian(dim=2), labels=Told()), steps=2000),
    "petals": Case(game=AAE(prior=Ring(), labels=Placed()), steps=3000),
    "guessed": Case(
        game=AAE(
            prior=Gaussian(dim=5),
            labels=Guessed((Crop(3), Rotate(15.0)), rows=100, steady=1.0, rebuilds=False),
            nets=DCGAN(wide=12),
            rates=Rates(labels=2e-3),
        ),
        steps=4000,
        batch_size=100,
    ),
    "clusters": Case(game=AAE(prior=Gaussian(dim=2), labels=Clustered(30)), steps=4000),
}


def rows_of(args: argparse.Namespace) -> tuple[DataSet, DataSet, DataSet]:
    """Rows to train on, to choose settings by, and to report."""
    if args.data_dir is None:
        sys.exit(f"Say in which folder {args.data}.npz is, with --data-dir or the variable ADAMANT_DATA_DIR.")
    parts = [am.load_data(args.data, split=part, data_dir=args.data_dir) for part in ("train", "val", "test")]
    return parts[0], parts[1], parts[2]


def judge_of(args: argparse.Namespace, train: DataSet) -> nn.Module:
    """Who says of what class a sample is: for MNIST a network that others trained, else one trained here."""
    if args.data == "mnist" and args.models_dir is not None:
        return network("mnist_lenet5_adv", args.models_dir)
    return train_judge(train)


def report(case: Case, played: Played, rows: DataSet, judge: nn.Module, seed: int) -> None:
    """The figures of these rows, with Wilson's intervals."""
    game, net = case.game, played.saved.networks
    error, mean = reconstruction(game, net, rows.x, rows.y)
    print(f"rebuilding: mean squared error {error:.4f} over {len(rows)} {rows.split} rows (the mean input: {mean:.4f})")
    chosen = torch.arange(0, len(rows), len(rows) // 500)[:500]
    test = latent(game, net, rows.x[chosen], rows.y[chosen], seed)
    words = "passed" if test.passed() else "failed"
    print(f"codes: {words}, p {test.p:.3f}, distance {test.distance:.4f}, share {test.share:.5f}, {test.rows} rows")
    # All across the rows: the halves of MNIST's test set were written by different people.
    sets = [torch.arange(k, len(rows), 20)[:500] for k in range(20)]
    passed = sum(latent(game, net, rows.x[part], rows.y[part], seed + k).passed() for k, part in enumerate(sets))
    print(f"codes: {passed} of 20 disjoint sets of {len(sets[0])} rows passed")
    if game.conditional:
        asked = torch.arange(5000) % len(rows.classes)
        _told("samples of the class that was asked for", agreement(game, net, judge, asked, seed), len(asked))
        right = int((in_batches(judge, rows.x).argmax(1) == rows.y).sum())
        _told(f"for scale, the judge on {rows.split} rows", right, len(rows))
    guess = encoded(game, net, rows.x)[1]
    if isinstance(game.labels, Guessed):
        _told("class guessed", int((guess.argmax(1) == rows.y).sum()), len(rows))
    if isinstance(game.labels, Clustered):
        found = names(guess, rows.y)[guess.argmax(1)]
        _told("class by cluster", int((found == rows.y).sum()), len(rows))
        print(f"clusters used: {len(guess.argmax(1).unique())}")


def _told(what: str, right: int, rows: int) -> None:
    held = share(right, rows)
    print(f"{what}: {held['accuracy']:.2%} [{held['low']:.2%}, {held['high']:.2%}] of {rows}")


def draw(case: Case, played: Played, material: Material, folder: Path, name: str) -> None:
    """The gallery as pictures."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    for number, held in enumerate(case.game.gallery(played.saved.networks, material, 0)):
        path = folder / f"{name}-{number}.png"
        if isinstance(held, Grid):
            picture = sheet(held).squeeze(2).numpy()
            plt.imsave(path, picture, cmap="gray_r" if picture.ndim == 2 else None, vmin=0, vmax=1)
            continue
        figure, axes = plt.subplots(figsize=(5, 5))
        axes.scatter(*held.drawn.T.numpy(), s=4, c="#cccccc", label="prior")
        dots = axes.scatter(*held.points.T.numpy(), s=5, c=held.y.numpy(), cmap="tab10")
        axes.legend(*dots.legend_elements(), fontsize=7, loc="upper right")
        axes.set(title=held.title, aspect="equal")
        figure.savefig(path, dpi=110, bbox_inches="tight")
        plt.close(figure)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--data", default="mnist", choices=("mnist", "fashion_mnist"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--validation", action="store_true", help="figures of validation rows, to choose settings by")
    parser.add_argument("--pictures", type=Path)
    args = parser.parse_args()
    case = CASES[args.case]
    steps = 300 if args.quick else args.steps or case.steps
    heading(f"{args.case}, {args.data}, seed {args.seed}, {steps} steps: {case.game!r}")
    train, val, test = rows_of(args)
    judge = judge_of(args, train)
    material = Material(data=train, validation=val)
    play = Play(steps=steps, batch_size=case.batch_size, measures=1, shape=OneCycle(0.1, 0.1))
    wall, cpu = time.perf_counter(), time.process_time()
    played = fit(Match(game=case.game, material=material, play=play, seed=args.seed))
    spent = time.process_time() - cpu
    print(f"trained on {len(train)} rows in {spent:.0f} CPU seconds ({time.perf_counter() - wall:.0f} on the wall)")
    shown = val if args.validation else test
    report(case, played, shown, judge, args.seed)
    if args.pictures:
        draw(case, played, replace(material, validation=shown), args.pictures, args.case)


if __name__ == "__main__":
    main()
