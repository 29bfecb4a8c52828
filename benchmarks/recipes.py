"""Every recipe on the same data and network: docs/recipes.md, made by this one command.

Trains zoo:cnn on the embedded digits by every recipe of the catalogue as it comes, with three seeds, and audits the
test rows with `quick_v1` within Linf 0.15, L2 0.7 and L1 3: alone and as a union. Recipes for several threat models
train within these three. Seconds are CPU seconds of training, one thread.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import arguments, heading

import adamant as am
from adamant.adversary import Status
from adamant.bounds import initialise_for_bounds
from adamant.engine import run
from adamant.evaluation import QUICK
from adamant.goals import Untargeted
from adamant.models import Architecture, build, save_model
from adamant.training import Adam, Job, Plan, fit, recipes
from adamant.training.teacher import Teacher
from adamant.training.views import Layered, leaves

THREATS = {"Linf": am.Linf(0.15), "L2": am.L2(0.7), "L1": am.L1(3.0)}
PLAN = Plan(epochs=30, batch_size=64, optimizer=Adam(3e-3), select_rows=100)
PAGE = Path(__file__).parent.parent / "docs" / "recipes.md"
HEAD = """# The recipes, side by side

Made by `python benchmarks/recipes.py`: `zoo:cnn`, {rows} handwritten digits (embedded in scikit-learn) to learn from,
359 to judge by, {epochs} epochs, Adam, seeds {seeds}; each recipe as it comes, so with the defaults of its paper,
which were meant for other data. Robust is against `Linf(0.15)`, union against that, `L2(0.7)` and `L1(3)` at once, all
by `quick_v1`; the mean over the seeds and, in brackets, the least and the most. Cost is in forward passes per row and
step (ordinary training: 3); seconds are CPU seconds of one training, one thread. With 359 rows the 95 % interval of a
share near 60 % is 5 points each way, so neighbours in this table are not told apart: it shows what each recipe is for,
not which is best on your data. `free` replays each batch eight times, so its epochs hold eight times the updates.
Recipes by bounds begin with weights for bounds and cut gradients at 10.

| recipe | clean | robust | union | cost | seconds |
|---|---:|---:|---:|---:|---:|
"""


def trained(make: Callable[..., am.Recipe], settings: dict[str, Any], seed: int, args: Any) -> dict[str, float]:
    """One training and its figures."""
    recipe = make(**settings)
    train, held, test = (am.load_data("digits", split=s) for s in ("train", "val", "test"))
    model = build("cnn", shape=(1, 8, 8), classes=10, seed=seed)
    plan = PLAN if not args.quick else Plan(epochs=1, batch_size=64, select_rows=32)
    test = test.take(torch.arange(40)) if args.quick else test
    if any(isinstance(leaf, Layered) for leaf in leaves(recipe.outer)):
        initialise_for_bounds(model, seed)
        plan = replace(plan, clip=10.0)
    cpu = time.process_time()
    fit(
        Job(model=model, data=train, validation=held, threat=THREATS["Linf"], recipe=recipe, plan=plan, seed=seed)
    )  # fmt: skip
    spent = time.process_time() - cpu
    standing: dict[str, torch.Tensor] = {}
    for name, threat in THREATS.items():
        course = QUICK.course(threat, am.WhiteBox())
        out = run(am.attacks.Union(*course.attacks), model, test.x, Untargeted(test.y), threat)
        standing[name] = out.status == Status.ROBUST
    clean = float((model(test.x).argmax(1) == test.y).double().mean())
    union = standing["Linf"] & standing["L2"] & standing["L1"]
    return {
        "clean": clean, "robust": float(standing["Linf"].double().mean()), "union": float(union.double().mean()),
        "cost": recipe.cost, "seconds": spent,
    }  # fmt: skip


def settings_of(name: str, folder: Path) -> dict[str, Any]:
    """What a recipe must be told: the budgets of this page, and a teacher."""
    if name in ("average", "maximum", "msd", "one_norm_per_batch"):
        return {"threats": tuple(THREATS.values())}
    if name in ("eat", "ramp"):
        return {"threats": (THREATS["Linf"], THREATS["L1"])}
    return {"teacher": taught(folder)} if name == "distilled" else {}


def taught(folder: Path) -> Teacher:
    """A robust network of the same kind, hardened by `madry` from another seed."""
    path = folder / "teacher.safetensors"
    if not path.is_file():
        data, held = am.load_data("digits", split="train"), am.load_data("digits", split="val")
        model = build("cnn", shape=(1, 8, 8), classes=10, seed=99)
        fit(Job(model=model, data=data, validation=held, threat=THREATS["Linf"], recipe=recipes.madry(), plan=PLAN))
        folder.mkdir(parents=True, exist_ok=True)
        save_model(model, path, architecture=Architecture(name="zoo:cnn", shape=(1, 8, 8), classes=10))
    return Teacher(str(path))


def line(name: str, found: list[dict[str, float]]) -> str:
    """One row of the table."""

    def share(key: str) -> str:
        values = [f[key] for f in found]
        return f"{statistics.mean(values):.1%} ({min(values):.1%} to {max(values):.1%})"

    seconds = statistics.mean(f["seconds"] for f in found)
    shares = " | ".join(map(share, ("clean", "robust", "union")))
    return f"| `{name}` | {shares} | {found[0]['cost']:.0f} | {seconds:.0f} |\n"


def main() -> None:
    """Train all, write the page."""
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--kept", type=Path, default=Path("runs/recipes.json"), help="figures of a run before, kept")
    args = parser.parse_args()
    torch.set_num_threads(1)
    heading("every recipe on the embedded digits")
    kept: dict[str, dict[str, float]] = json.loads(args.kept.read_text()) if args.kept.is_file() else {}
    page = HEAD.format(rows=len(am.load_data("digits", split="train").y), epochs=PLAN.epochs, seeds=args.seeds)
    for make in recipes.CATALOGUE:
        name = make.__name__
        if args.only and name not in args.only:
            continue
        settings = settings_of(name, args.kept.parent)
        found: list[dict[str, float]] = []
        for seed in args.seeds:
            key = f"{name} {seed}"
            if key not in kept:
                kept[key] = trained(make, settings, seed, args)
                if not args.quick:
                    args.kept.parent.mkdir(parents=True, exist_ok=True)
                    args.kept.write_text(json.dumps(kept, indent=1))
            found.append(kept[key])
        page += line(name, found)
        print(line(name, found), end="", flush=True)
    page += "\n## What each minimises\n\nThe mean over the rows of a batch, views made by the attack of the recipe.\n\n"
    for make in recipes.CATALOGUE:
        recipe = make(**settings_of(make.__name__, args.kept.parent))
        about = " ".join((make.__doc__ or "").split())
        page += f"- **{recipe.name}**: `{recipe.outer}`. {about} {recipe.source}.\n"
    if not args.quick and not args.only:
        PAGE.write_text(page)


if __name__ == "__main__":
    main()
