"""Learned attacks on MNIST: what a trained generator breaks, beside PGD-40, and what its answer costs.

python benchmarks/learned_attacks.py advgan --target mnist_lenet5_clean
python benchmarks/learned_attacks.py advgan --target mnist_cnn_pgd
python benchmarks/learned_attacks.py advgan --target mnist_lenet5_clean --black-box scores
python benchmarks/learned_attacks.py nag --target mnist_lenet5_clean
python benchmarks/learned_attacks.py latent --target mnist_lenet5_adv

Generators learn on training rows and are chosen on 2000 rows cut from them; test rows are attacked once, at the end.
The latent search needs no rows: a GAN with labels learns on training rows, `mnist_cnn_pgd` judges what it draws, and
another network, which neither the search nor the judge knows, is asked how many of the successes it sees as meant.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from common import Clock, arguments, heading, network, timed
from PIL import Image
from torch import Tensor, nn

import adamant as am
from adamant.adversary import Attack
from adamant.data import DataSet
from adamant.engine import run
from adamant.evaluation.counting import share
from adamant.generation.advgan import AdvGAN, Distilled, Small
from adamant.generation.base import Material
from adamant.generation.fit import Match, Play, fit
from adamant.generation.gan import GAN
from adamant.generation.judge import train_judge
from adamant.generation.latent import unrestricted
from adamant.generation.nag import NAG
from adamant.generation.nets import Auxiliary
from adamant.goals import Untargeted
from adamant.models import Architecture, save_model
from adamant.threats import Parametric, Projectable

ACCESS = {"scores": am.ScoresOnly(), "labels": am.LabelsOnly()}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("what", choices=("advgan", "nag", "latent"))
    parser.add_argument("--target", default="mnist_lenet5_clean", help="one of the reference networks")
    parser.add_argument("--black-box", choices=tuple(ACCESS), help="learn on a surrogate, by what the target shows")
    parser.add_argument("--eps", type=float, default=0.3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--confidence", type=float, default=5.0)
    parser.add_argument("--cross-entropy", action="store_true", help="in place of the margin, for robust targets")
    parser.add_argument("--size", type=float, default=0.03, help="weight of the hinge on the size of a change")
    parser.add_argument("--realism", type=float, default=0.1, help="weight of the discriminator")
    parser.add_argument("--diversity", type=float, default=5.0)
    parser.add_argument("--reach", type=float, default=0.5, help="of the latent search, in standard deviations")
    parser.add_argument("--rows", type=int, default=500, help="of the latent search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on where the last run stopped")
    parser.add_argument("--learned", action="store_true", help="judge the generator that lies in the folder")
    parser.add_argument("--search-rows", type=int, default=10000, help="test rows for PGD-40, which takes its time")
    parser.add_argument("--validate", action="store_true", help="stop before the test rows")
    parser.add_argument("--out", type=Path, default=Path("runs/learned"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    heading(f"{asked.what}: {' '.join(f'{k}={v}' for k, v in vars(asked).items() if not isinstance(v, Path))}")
    unrestricted_examples(asked) if asked.what == "latent" else learned(asked)


def game(asked: argparse.Namespace) -> AdvGAN | NAG:
    if asked.what == "nag":
        return NAG(confidence=asked.confidence, diversity=asked.diversity, rate=asked.rate)
    return AdvGAN(
        confidence=asked.confidence, realism=asked.realism, small=Small(weight=asked.size), rate=asked.rate,
        distilled=Distilled(access=ACCESS[asked.black_box]) if asked.black_box else None,
        loss=am.CrossEntropy() if asked.cross_entropy else am.Margin(),
    )  # fmt: skip


def learn(asked: argparse.Namespace, material: Material, folder: Path) -> None:
    steps = 100 if asked.quick else asked.steps
    began = time.process_time()
    played = fit(
        Match(
            game=game(asked), material=material, seed=asked.seed, folder=folder, resume=asked.resume,
            play=Play(steps=steps, batch_size=128, measures=max(2, steps // 150)),
        )
    )  # fmt: skip
    print(f"learned in {time.process_time() - began:.0f} CPU s; best at step {played.best_step} of {steps}")
    for entry in played.measured:
        entry = {k: v for k, v in entry.items() if isinstance(v, float)}
        print("  " + " ".join(f"{k} {v:.3f}" for k, v in entry.items()), flush=True)


def learned(asked: argparse.Namespace) -> None:
    target, threat = network(asked.target, asked.models_dir), am.Linf(asked.eps)
    data = am.load_data("mnist", split="train", data_dir=asked.data_dir)
    validation = am.load_data("mnist", split="val", limit=2000, data_dir=asked.data_dir)
    material = Material(data=data, validation=validation, target=target, threat=threat)
    folder = asked.out / f"{asked.what}-{asked.target}-{asked.black_box or 'white'}"
    if not asked.learned:
        learn(asked, material, folder)
    if asked.validate:
        return
    test = am.load_data("mnist", split="test", limit=1000 if asked.quick else None, data_dir=asked.data_dir)
    path = str(folder / "game.safetensors")
    ours: list[Attack] = [am.AdvGAN(generator=path)] if asked.what == "advgan" else [
        am.NAG(generator=path, steps=0), am.NAG(generator=path)
    ]  # fmt: skip
    for attack in (*ours, am.Draws(steps=0)):
        told(attack, target, test, threat, folder)
    told(am.PGD(steps=40), target, test.take(torch.arange(min(len(test), asked.search_rows))), threat, folder)


def unrestricted_examples(asked: argparse.Namespace) -> None:
    folder = asked.out / "gan"
    if not (folder / "game.safetensors").is_file():
        data = am.load_data("mnist", split="train", data_dir=asked.data_dir)
        validation = am.load_data("mnist", split="val", limit=2000, data_dir=asked.data_dir)
        material = Material(data=data, validation=validation, judge=train_judge(data))
        play = Play(steps=100 if asked.quick else asked.steps, measures=2)
        played = fit(Match(game=GAN(labels=Auxiliary()), material=material, play=play, folder=folder))
        print(f"the GAN: {played.seconds:.0f} s, {played.measured[-1]}", flush=True)
    architecture = Architecture(name="zoo:cnn", shape=(1, 28, 28), classes=10)
    save_model(network("mnist_cnn_pgd", asked.models_dir), folder / "judge.safetensors", architecture=architecture)
    x, y, threat = unrestricted(
        str(folder / "game.safetensors"), str(folder / "judge.safetensors"), 50 if asked.quick else asked.rows,
        reach=asked.reach, seed=asked.seed + (not asked.validate),
    )  # fmt: skip
    target = network(asked.target, asked.models_dir)
    other = network(
        "mnist_lenet5_clean" if asked.target != "mnist_lenet5_clean" else "mnist_lenet5_adv", asked.models_dir
    )
    for attack in (am.LatentSearch(), am.PGD(steps=50), am.RandomSearch(steps=200), am.Draws(steps=50)):
        out, clock = judged(attack, target, x, y, threat)
        right, fell = int((out.status != am.Status.WRONG_ALREADY).sum()), out.broken
        found = share(int(fell.sum()), right)
        with torch.no_grad():
            seen = float((other(out.x_adv[fell]).argmax(1) == y[fell]).double().mean()) if fell.any() else 0.0
        print(
            f"{type(attack).__name__}, {attack.steps} steps: {found['correct']} of {right} drawn inputs that the model "
            f"had right fell, {found['accuracy']:.3f} [{found['low']:.3f}, {found['high']:.3f}], each seen as meant by "
            f"the judge; another network sees {seen:.1%} of them so; {1000 * clock.cpu / len(x):.1f} CPU s per 1000",
            flush=True,
        )
        rows = [i for k in range(10) for i in (fell & (y == k)).nonzero()[:2, 0].tolist()]
        if rows:
            name = f"{asked.target}-{type(attack).__name__.lower()}.png"
            tiles(torch.stack([x[rows], out.x_adv[rows]])).save(folder / name)


def judged(
    attack: Attack, target: nn.Module, x: Tensor, y: Tensor, threat: Projectable | Parametric
) -> tuple[am.Outcome, Clock]:
    held: list[am.Outcome] = []
    clock = timed(lambda: held.append(run(attack, target, x, Untargeted(y), threat)))
    return held[0], clock


def told(attack: Attack, target: nn.Module, test: DataSet, threat: am.Linf, folder: Path) -> None:
    """Judge the attack on the test rows, all of which count; the pictures are of the first row of each class."""
    (out, clock), n = judged(attack, target, test.x, test.y, threat), len(test.y)
    inside = bool(threat.contains(out.x_adv, test.x).all())
    found = share(round(out.robust_accuracy * n), n)
    print(
        f"{type(attack).__name__}, {attack.steps} steps: accuracy {found['accuracy']:.4f} "
        f"[{found['low']:.4f}, {found['high']:.4f}] of {n}, all inside the set: {inside}, "
        f"{1000 * clock.cpu / n:.2f} CPU s per 1000",
        flush=True,
    )
    firsts = torch.stack([(test.y == k).nonzero()[0, 0] for k in range(10)])
    tiles(torch.stack([test.x[firsts], out.x_adv[firsts]])).save(folder / f"{type(attack).__name__.lower()}.png")


def tiles(x: Tensor, scale: int = 2) -> Image.Image:
    """Rows of grey pictures (rows, columns, 1, h, w) as one."""
    rows, columns, _, h, w = x.shape
    whole = x[:, :, 0].permute(0, 2, 1, 3).reshape(rows * h, columns * w)
    picture = Image.fromarray((whole.clamp(0, 1) * 255).round().byte().numpy())
    return picture.resize((columns * w * scale, rows * h * scale), Image.Resampling.NEAREST)


if __name__ == "__main__":
    main()
