"""How near a GAN comes to the data in so many CPU seconds, and whether training on what it makes helps.

`python benchmarks/generation.py digits|mnist|fashion_mnist` trains on the training split, keeps what scored best on
validation rows, and measures on the test rows, beside real rows (floor) and noise (ceiling). CPU seconds are of the
whole process, the classifier that measures included. Samples are drawn class by class into --out.

`python benchmarks/generation.py games` plays games of several papers on the digits.

`python benchmarks/generation.py gain` trains a small network on few digits, with and without made rows beside them, for
--seeds seeds: clean and robust accuracy on the test rows, each pair from the same start and with as many steps.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from common import arguments, heading
from PIL import Image

import adamant as am
from adamant.data import Mix, load_data
from adamant.evaluation import QUICK
from adamant.generation.base import Material
from adamant.generation.fit import Match, Play, Played, fit
from adamant.generation.gan import GAN
from adamant.generation.judge import train_judge
from adamant.generation.losses import R1, R2, GradientPenalty, Hinge, Relativistic, Wasserstein
from adamant.generation.measures import copied
from adamant.generation.nets import Auxiliary, Projection
from adamant.generation.pictures import Grid, sheet
from adamant.generation.samples import draw
from adamant.models import build
from adamant.runtime.knobs import Cosine
from adamant.training import Plan
from adamant.values import brief


@dataclass(frozen=True, kw_only=True)
class Case:
    """A game, and how long it is played."""

    game: GAN
    play: Play


_PICTURES = Case(
    game=GAN(labels=Projection(), penalties=(R1(gamma=0.3),)),
    play=Play(steps=5000, shape=Cosine(), measures=8, autocast=True),
)
CASES = {
    "digits": Case(game=GAN(), play=Play(steps=3000)),
    "digits-labels": Case(game=GAN(labels=Projection()), play=Play(steps=3000)),
    "mnist": _PICTURES,
    "fashion_mnist": _PICTURES,
}


def made(case: str, seed: int, folder: Path | None, quick: bool) -> tuple[Played, Material]:
    """The finished run, and the material with the test rows in the place of validation."""
    chosen = CASES[case]
    name, play = case.removesuffix("-labels"), replace(chosen.play, steps=160) if quick else chosen.play
    data, val, test = (load_data(name, split=part, data_dir=folder) for part in ("train", "val", "test"))
    material = Material(data=data, validation=val, judge=train_judge(data))

    def tell(step: int, steps: int, words: str) -> None:
        if words.startswith(("epoch", "back")):
            print(f"  step {step} of {steps}, {time.process_time():.0f} CPU s, {words}", flush=True)

    played = fit(Match(game=chosen.game, material=material, play=play, seed=seed, watch=tell))
    return played, replace(material, validation=test)


def one(case: str, seed: int, out: Path | None, folder: Path | None, quick: bool) -> dict[str, Any]:
    """Train, measure on the test rows, and draw."""
    began = time.process_time()
    print(f"{case}: {brief(CASES[case].game)}, {brief(CASES[case].play)}")
    played, last = made(case, seed, folder, quick)
    seconds = time.process_time() - began
    found = played.saved.game.measure(played.saved.networks, last, seed + 1)
    rows = draw(played.saved, 1000, seed=seed, judge=last.judge)
    result = {
        "case": case,
        "seed": seed,
        "cpu_seconds": round(seconds, 1),
        "step": played.best_step,
        "test": dict(found.figures),
        "floor": asdict(last.reference.floor),
        "ceiling": asdict(last.reference.ceiling),
        "copied": copied(rows.x, last.data.x, last.validation.x[:1000]),
        "warnings": list(found.warnings),
    }
    for name in ("test", "floor", "ceiling"):
        print(f"  {name:8}", ", ".join(f"{k} {v:.3g}" for k, v in result[name].items()))
    print(f"  copied {result['copied']:.3f}; {seconds:.0f} CPU s; step {played.best_step} kept")
    if out:
        out.mkdir(parents=True, exist_ok=True)
        shown = played.saved.game.show(played.saved.networks, last, seed)
        picture = sheet(Grid(title="", x=shown, columns=10)).mul(255).round().byte().squeeze(-1)
        Image.fromarray(picture.numpy()).save(out / f"{case}.png", optimize=True)
        (out / f"{case}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


NAMED = {
    "R1": GAN(),
    "WGAN-GP": GAN(loss=Wasserstein(), penalties=(GradientPenalty(),), critics=5, rate=1e-4),
    "R3GAN": GAN(loss=Relativistic(), penalties=(R1(), R2())),
    "SNGAN": GAN(loss=Hinge(), penalties=(), spectral=True),
    "no penalty": GAN(penalties=()),
    "projection": GAN(labels=Projection()),
    "AC-GAN": GAN(labels=Auxiliary()),
}


def games(seed: int, quick: bool) -> None:
    """Games by their names in papers, on the digits, with as many moves of the generator."""
    train, val, test = (load_data("digits", split=part) for part in ("train", "val", "test"))
    material = Material(data=train, validation=val, judge=train_judge(train))
    last = replace(material, validation=test)
    print(f"digits, floor {last.reference.floor.frechet:.3g}, noise {last.reference.ceiling.frechet:.4g}")
    for name, game in NAMED.items():
        began = time.process_time()
        play = Play(steps=150 if quick else 2000, measures=5)
        played = fit(Match(game=game, material=material, play=play, seed=seed))
        found = game.measure(played.saved.networks, last, seed + 1).figures
        told = ", ".join(f"{k} {found[k]:.3g}" for k in ("frechet", "precision", "recall", "coverage", "modes"))
        print(f"{name:10} {told}; {time.process_time() - began:.0f} CPU s", flush=True)


def gain(seeds: int, few: int = 200, epochs: int = 60) -> None:
    """Clean and robust accuracy with no made rows, and with a third and two thirds of each batch made."""
    threat, found = am.Linf(0.1), dict[tuple[str, float], list[tuple[float, float]]]()
    train, val, test = (load_data("digits", split=part) for part in ("train", "val", "test"))
    train = train.take(torch.arange(few))
    for seed in range(seeds):
        # The generator sees the same few rows, and the judge that chooses it too.
        material = Material(data=train, validation=val, judge=train_judge(train))
        played = fit(Match(game=GAN(labels=Projection()), material=material, play=Play(steps=1200), seed=seed))
        rows = draw(played.saved, 2000, seed=seed)
        for recipe in (am.recipes.standard(), am.recipes.madry()):
            for share in (0.0, 1 / 3, 2 / 3):
                model = build("small-cnn", shape=(1, 8, 8), classes=10, seed=seed)
                # As many steps: an epoch is over when the real rows are.
                plan = Plan(epochs=round(epochs * (1 - share)), batch_size=48)
                data = Mix(real=train, generated=rows, share=share) if share else train
                hard = am.train(model, data, recipe, threat, validation=val, plan=plan, seed=seed)
                told = am.audit(hard, test, threat, seed=seed, suite=QUICK).summary()
                pair = (told["clean"]["accuracy"], told["robust"]["accuracy"])
                found.setdefault((recipe.name, share), []).append(pair)
    print(f"{few} rows of digits, Linf({threat.eps}), {seeds} seeds: mean (deviation) on {len(test)} test rows")
    for (name, share), pairs in found.items():
        clean, robust = zip(*pairs, strict=True)
        print(
            f"{name:9} made rows {share:3.0%}: clean {statistics.mean(clean):.1%} ({_spread(clean):.1%}), "
            f"robust {statistics.mean(robust):.1%} ({_spread(robust):.1%})"
        )


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def main() -> None:
    """Read the arguments and run one case."""
    parser = arguments(__doc__)
    parser.add_argument("cases", nargs="+", choices=(*CASES, "games", "gain"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    heading("What a game of networks makes")
    for case in args.cases:
        if case == "gain":
            gain(1 if args.quick else args.seeds)
        elif case == "games":
            games(args.seed, args.quick)
        else:
            one(case, args.seed, args.out, args.data_dir, args.quick)


if __name__ == "__main__":
    main()
