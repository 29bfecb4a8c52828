"""What each attack does, on real pictures: the page docs/arsenal.md and its pictures, made by this one command.

Trains a small convolutional network on MNIST and on Fashion-MNIST, the ordinary way and adversarially, attacks the
first test images with every attack of the catalogue, and writes for each its success, the median size of its changes,
passes and seconds, and a picture.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import arguments, counted, heading, timed
from PIL import Image
from torch import Tensor, nn

import adamant as am
from adamant.access import LabelsOnly, ScoresOnly, Sight
from adamant.adversary import Composite
from adamant.attacks.catalogue import CATALOGUE, Entry
from adamant.engine import run
from adamant.goals import Untargeted
from adamant.random import Rng
from adamant.runtime.knobs import Ramp
from adamant.training import Plan
from adamant.values import brief

ROOT = Path(__file__).parents[1]
DATA = {"mnist": 0.2, "fashion_mnist": 0.1}  # and the Linf budget of the adversarial training
BUDGETS = {"Linf": None, "L2": 1.5, "L1": 15.0, "L0": 20.0}  # Linf: the budget of the training
# Without the ramp the network stays at one answer for all: the full budget from the first step is too much for it.
HARDENED = am.recipes.madry(attack=am.PGD(steps=5, rate=0.3), eps=Ramp(until=0.6))
# Defaults are for real audits; here each attack gets so much that it can show what it does in seconds.
SHORTER: dict[str, Any] = {
    "Square": am.Square(steps=500), "SparseRS": am.SparseRS(steps=500), "SimBA": am.SimBA(steps=1000),
    "Bandits": am.Bandits(steps=250), "RandomSearch": am.RandomSearch(steps=500),
    "OnePixel": am.OnePixel(steps=20, population=50), "HopSkipJump": am.HopSkipJump(steps=10),
    "RayS": am.RayS(steps=500), "SurFree": am.SurFree(steps=100), "BoundaryAttack": am.BoundaryAttack(steps=1000),
    "SigmaZero": am.SigmaZero(steps=200), "CarliniWagnerLinf": am.CarliniWagnerLinf(steps=400),
    "SignOPT": am.SignOPT(steps=20), "ALMA": am.ALMA(steps=200),
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One attack against one network."""

    success: float
    median: float | None
    forwards: float
    backwards: float
    ms: float


def small_network(data: str, recipe: Any, eps: float, args: Any) -> nn.Module:
    """Trained here and now."""
    train = am.load_data(data, split="train", limit=args.train_rows, data_dir=args.data_dir)
    model = am.load_model("zoo:cnn", shape=tuple(train.x.shape[1:]), classes=10)
    return am.train(model, train, recipe, am.Linf(eps), plan=Plan(epochs=args.epochs, batch_size=64), seed=0)


LEARNED = ("SameChange", "AdvGAN", "NAG", "LatentSearch")  # what they need is learned in learned_attacks.py


def threat_of(entry: Entry, eps: float) -> Any:
    """Without a budget where the attack seeks the smallest change; else the norm it is best known for."""
    norm = getattr(entry.member, "threats", (am.Linf,))[0]
    if entry.name in ("DDN", "FMN", "FAB"):
        norm = am.L2
    if entry.finds == "smallest":
        return norm()
    budget = BUDGETS[norm.__name__]
    if norm is am.L0 and entry.name == "OnePixel":
        return am.L0(1, pixels=True)
    return norm(eps if budget is None else budget)


def tile(x: Tensor, z: Tensor) -> Image.Image:
    """The image, the adversarial one, and the change, amplified to half the range, side by side."""
    change = z - x
    shown = 0.5 + change * (0.5 / change.abs().max().clamp_min(1e-6))
    row = torch.cat([x, torch.ones(*x.shape[:2], 2), z, torch.ones(*x.shape[:2], 2), shown], 2)
    pixels = (row.clamp(0, 1)[0] * 255).round().byte().numpy()
    return Image.fromarray(pixels).resize((pixels.shape[1] * 3, pixels.shape[0] * 3), Image.Resampling.NEAREST)


def measure(attack: Any, model: nn.Module, x: Tensor, y: Tensor, threat: Any) -> tuple[Line, am.Outcome]:
    """One run, timed."""
    access = {Sight.LABELS: LabelsOnly(), Sight.SCORES: ScoresOnly()}.get(attack.needs)
    found: list[am.Outcome] = []

    def go() -> None:
        found.append(run(attack, model, x, Untargeted(y), threat, access=access, rng=Rng.of(0, len(x))))

    with counted(model) as passes:
        clock = timed(go)
    out = found[0]
    median = float(out.size[out.broken].median()) if out.broken.any() else None
    n = len(x)
    return Line(out.success_rate, median, passes.forwards / n, passes.backwards / n, clock.cpu / n * 1000), out


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--train-rows", type=int, default=12000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument("--only", nargs="*", help="some attacks, for a first look")
    args = parser.parse_args()
    if args.data_dir is None:
        sys.exit("Say with --data-dir or ADAMANT_DATA_DIR where mnist.npz and fashion_mnist.npz are.")
    torch.set_num_threads(1)
    heading("Every attack on networks trained here")
    lines: dict[str, list[str]] = {}
    facts: list[str] = []
    folder = args.out / "arsenal"
    folder.mkdir(parents=True, exist_ok=True)
    for data, eps in DATA.items():
        test = am.load_data(data, limit=4 * args.rows, data_dir=args.data_dir)
        for kind, recipe in (
            ("ordinary", am.recipes.standard()),
            ("adversarial", HARDENED),
        ):
            model = small_network(data, recipe, eps, args).eval()
            with torch.no_grad():
                right = (model(test.x).argmax(1) == test.y).nonzero().flatten()
            facts.append(f"{data}, {kind}: {len(right) / len(test.y):.1%} of {len(test.y)} test images right")
            print(facts[-1], flush=True)
            x, y = test.x[right[: args.rows]], test.y[right[: args.rows]]
            for entry in CATALOGUE:
                if isinstance(entry.member, Composite) or entry.needs == "-" or entry.name in LEARNED:
                    continue
                if args.only and entry.name not in args.only:
                    continue
                attack, threat = SHORTER.get(entry.name) or entry.member(), threat_of(entry, eps)
                line, out = measure(attack, model, x, y, threat)
                median = "-" if line.median is None else f"{line.median:.3g}"
                cells = (
                    f"| {data}, {kind} | {line.success:.0%} | {median} | {line.forwards:.0f} + {line.backwards:.0f} "
                )
                lines.setdefault(entry.name, [f"`{brief(attack)}` under `{brief(threat)}`"]).append(
                    f"{cells}| {line.ms:.1f} |"
                )
                print(entry.name, brief(threat), line, flush=True)
                if data == "fashion_mnist" and kind == "ordinary" and out.broken.any():
                    i = int(out.broken.nonzero()[0])
                    tile(x[i], out.x_adv[i]).save(folder / f"{entry.name}.png", optimize=True)
    write(args, folder, lines, facts)


INTRO = """# The arsenal

Every attack, what it does to a picture, and what it costs. Made by

```sh
python benchmarks/arsenal.py --rows {rows} --train-rows {train_rows} --epochs {epochs}
```

The networks are `zoo:cnn`, trained by that command (seed 0, one thread), the adversarial ones with PGD-5 at up to Linf
0.2 (MNIST) and 0.1 (Fashion-MNIST). Attacks are untargeted, seed 0, on the first {rows} test images that the network
has right, and their settings are shorter than the defaults where that keeps them to seconds. With so few images,
success is known to within 14 points (95 %). The median size is over successes. Passes are per image, as a hook on the
model counts them, verification and rows that fill up a batch included; milliseconds are CPU time per image, for a
feeling only.
An attack that seeks the smallest change has no budget to keep to, so for it success says little and size says all.
Within Linf the budget is 0.2 on MNIST and 0.1 on Fashion-MNIST; the line above each table names the first.

Pictures: Fashion-MNIST (Zalando, MIT licence); the image, the adversarial one, and the change, amplified.

{facts}.
"""


def write(args: Any, folder: Path, lines: dict[str, list[str]], facts: list[str]) -> None:
    """The page."""
    parts = [INTRO.format(rows=args.rows, train_rows=args.train_rows, epochs=args.epochs, facts="; ".join(facts))]
    for entry in CATALOGUE:
        if entry.name not in lines:
            continue
        settings, *rows = lines[entry.name]
        parts.append(f"## {entry.name}\n")
        parts.append(f"{entry.when[0].upper()}{entry.when[1:]}. {entry.source}. Needs: {entry.needs}.\n")
        if (folder / f"{entry.name}.png").is_file():
            parts.append(f"![The image, the adversarial one and the change]({folder.name}/{entry.name}.png)\n")
        parts.append(f"{settings}\n")
        head = "| network | success | median size | forwards + backwards | ms |\n|---|---|---|---|---|"
        parts.append("\n".join([head, *rows]) + "\n")
    (args.out / "arsenal.md").write_text("\n".join(parts))


if __name__ == "__main__":
    main()
