"""How robust a network can be made in so many minutes: our best recipe for each data set, and how it gets there.

`python benchmarks/training.py mnist` trains on the training split, chooses the epoch on validation rows, and audits the
first --rows test rows with `standard_v1` and `strict_v1`. For masked gradients it looks with attacks that need none or
others: Square with 5000 looks alone, and PGD through a softer copy of the thresholds (BPDA). Accuracy over CPU seconds
is printed epoch by epoch. Settings were chosen on validation rows; CIFAR-10 is a JPEG copy.

`cifar-gpu` is for one data-centre GPU (--device cuda): at least 45 % in 3 minutes, at least 50 % in 10. With --quick it
is a smoke run for any machine.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from common import arguments, heading
from torch import nn

import adamant as am
from adamant.bounds import initialise_for_bounds, margins, surest
from adamant.engine import run
from adamant.evaluation import STANDARD, STRICT, Order, audit
from adamant.goals import Untargeted
from adamant.models import BPDA, Architecture, build, count_parameters, save_model
from adamant.models.zoo.cnn import Threshold
from adamant.runtime.augment import Augment, Crop, Flip
from adamant.runtime.knobs import OneCycle, Ramp
from adamant.training import EMA, SGD, Adam, Job, Plan, fit

MEAN = EMA(0.999)
COLOUR: tuple[Augment, ...] = (Flip(), Crop(2))


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is trained, how, and against what."""

    data: str
    network: str
    threat: am.Linf
    recipe: am.Recipe
    plan: Plan


def _tough(steps: int, rate: float, mean: EMA = MEAN, until: float = 0.3) -> am.Recipe:
    return am.recipes.madry(attack=am.PGD(steps=steps, rate=rate), average=mean, eps=Ramp(until=until))


CASES = {
    "mnist": Case(
        data="mnist",
        network="threshold-cnn",
        threat=am.Linf(0.3),
        recipe=_tough(4, 0.45),
        plan=Plan(epochs=12, batch_size=128, optimizer=Adam(2e-3), augment=(Crop(1),)),
    ),
    "mnist-bounds": Case(
        data="mnist",
        network="threshold-cnn",
        threat=am.Linf(0.3),
        recipe=am.recipes.ibp(kappa=Ramp(until=0.55, low=1.0, high=0.3), eps=Ramp(until=0.55, high=1.2)),
        plan=Plan(
            epochs=14, batch_size=128, optimizer=Adam(2e-3), shape=OneCycle(peak=0.5, low=0.5), clip=10.0,
            augment=(Crop(1),),
        ),
    ),
    "fashion": Case(
        data="fashion_mnist",
        network="wide-cnn",
        threat=am.Linf(0.1),
        recipe=_tough(4, 0.45),
        plan=Plan(epochs=8, batch_size=128, optimizer=Adam(2e-3)),
    ),
    "signs": Case(
        data="gtsrb_32",
        network="conv5",
        threat=am.Linf(8 / 255),
        recipe=_tough(3, 0.5, EMA(0.995)),
        plan=Plan(
            epochs=30, batch_size=64, optimizer=SGD(0.1), shape=OneCycle(0.2, 0.05), l2=5e-4, augment=(Crop(2),),
            select_rows=256, autocast=True, channels_last=True,
        ),
    ),
    "cifar": Case(
        data="cifar10_jpeg",
        network="conv5",
        threat=am.Linf(8 / 255),
        recipe=am.recipes.nfgsm(average=EMA(0.995), eps=Ramp(until=0.15)),
        plan=Plan(
            epochs=16, batch_size=128, optimizer=SGD(0.15), shape=OneCycle(0.2, 0.05), l2=5e-4, augment=COLOUR,
            select_rows=256, autocast=True, channels_last=True,
        ),
    ),
    "cifar-gpu": Case(
        data="cifar10_jpeg",
        network="preact-resnet18",
        threat=am.Linf(8 / 255),
        recipe=am.recipes.nfgsm(average=EMA(0.9995), eps=Ramp(until=0.15)),
        plan=Plan(
            epochs=60, batch_size=256, optimizer=SGD(0.2), shape=OneCycle(0.2, 0.05), l2=5e-4,
            augment=(Flip(), Crop(4)), select_rows=1024, autocast=True, channels_last=True, compile=True,
        ),
    ),
}  # fmt: skip


def train(case: Case, args: Any, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """The network, and its accuracy on validation rows over CPU seconds."""
    data, held = (am.load_data(case.data, split=s, data_dir=args.data_dir) for s in ("train", "val"))
    plan = case.plan
    if args.quick:
        data, plan = data.take(torch.arange(512)), replace(plan, epochs=2, batch_size=64, select_rows=32, compile=False)
    if args.epochs:
        plan = replace(plan, epochs=args.epochs)
    model = build(case.network, shape=tuple(data.x.shape[1:]), classes=len(data.classes), seed=seed).to(args.device)
    if case.recipe.name in ("ibp", "crown_ibp"):
        initialise_for_bounds(model)
    cpu, wall = time.process_time(), time.perf_counter()
    course: list[dict[str, float]] = []

    def watch(_step: int, _steps: int, words: str) -> None:
        if words.startswith(("epoch", "back")):
            spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
            course.append(spent)
            print(f"  {spent['cpu']:7.0f} CPU s {spent['wall']:7.0f} s  {words}", flush=True)

    job = Job(
        model=model, data=data, validation=held, threat=case.threat, recipe=case.recipe, plan=plan, seed=seed,
        watch=watch,
    )  # fmt: skip
    report = fit(job)
    facts = {
        "weights": count_parameters(model),
        "recipe": repr(case.recipe),
        "plan": repr(plan),
        "epochs": [{**e, **spent} for e, spent in zip(report.epochs, course, strict=False)],
        "best_epoch": report.best_epoch,
        "events": list(report.events),
        "cpu_seconds": time.process_time() - cpu,
        "seconds": time.perf_counter() - wall,
    }
    return model, facts


def judge(model: nn.Module, case: Case, args: Any, seed: int) -> dict[str, Any]:
    """Test rows under our suites, and under what would find more if gradients were masked."""
    test = am.load_data(case.data, split="test", limit=32 if args.quick else args.rows, data_dir=args.data_dir)
    found: dict[str, Any] = {}
    for suite in (STANDARD,) if args.quick else (STANDARD, STRICT):
        summary = audit(model, test, Order(threat=case.threat, suite=suite, seed=seed, curve=False)).summary()
        found["clean"], found[suite.name] = summary["clean"], summary["robust"]
        robust = summary["robust"]
        print(
            f"  {suite.name}: clean {summary['clean']['accuracy']:.2%}, robust {robust['accuracy']:.2%} "
            f"[{robust['low']:.2%}, {robust['high']:.2%}] of {robust['rows']} test rows",
            flush=True,
        )
    some = test.take(torch.arange(min(len(test), args.probe_rows)))
    goal = Untargeted(some.y)
    others: dict[str, tuple[nn.Module, Any]] = {"Square, 5000 looks": (model, am.attacks.Square(steps=5000))}
    if isinstance(model, nn.Sequential) and isinstance(model[0], Threshold):
        for steepness in (4.0, 10.0):
            soft = nn.Sequential(_softer(model[0], steepness), nn.Sigmoid())
            through = BPDA(nn.Sequential(*model[2:]), nn.Sequential(*model[:2]), soft)
            strong = am.attacks.Restarts(am.PGD(steps=100, rate=0.05, loss=am.Margin()), 3)
            others[f"PGD-100 x 3 through thresholds of steepness {steepness:g}"] = (through, strong)
    for name, (asked, attack) in others.items():
        stands = run(attack, asked, some.x, goal, case.threat).robust_accuracy
        found[name] = stands
        print(f"  {name}: {stands:.2%} of {len(some)} test rows stand", flush=True)
    if case.recipe.name in ("ibp", "crown_ibp", "mtl_ibp"):
        held = sum(
            int((surest(margins(model, x, y, case.threat), y) > 1e-5).sum())
            for x, y in zip(test.x.split(500), test.y.split(500), strict=True)
        )
        found["held by interval bounds"] = held / len(test)
        print(f"  held by interval bounds: {held / len(test):.2%} of {len(test)} test rows", flush=True)
    return found


def _softer(threshold: Threshold, steepness: float) -> nn.Conv2d:
    """The same level, less steep."""
    soft = nn.Conv2d(threshold.in_channels, threshold.out_channels, 1, groups=threshold.groups)
    assert threshold.bias is not None
    assert soft.bias is not None
    with torch.no_grad():
        share = steepness / threshold.weight
        soft.weight.fill_(steepness)
        soft.bias.copy_(threshold.bias * share.flatten())
    return soft.requires_grad_(False)


def main() -> None:
    """Train and judge, once for each seed."""
    parser = arguments(__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--rows", type=int, default=2000, help="test rows")
    parser.add_argument("--probe-rows", type=int, default=200, help="test rows for the looks beside the suites")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=None, help="a folder for figures (json) and weights")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    case = CASES[args.case]
    heading(f"{args.case}: {case.network} on {case.data} within {case.threat!r}, {args.threads} threads, {args.device}")
    print(case.recipe.explain(), flush=True)
    for seed in args.seeds:
        print(f"seed {seed}", flush=True)
        model, facts = train(case, args, seed)
        print(f"  trained in {facts['cpu_seconds']:.0f} CPU s, {facts['seconds']:.0f} s; {facts['weights']:,} weights")
        facts |= judge(model, case, args, seed)
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            (args.out / f"{args.case}-{seed}.json").write_text(json.dumps(facts, indent=1) + "\n")
            data = am.load_data(case.data, split="test", limit=1, data_dir=args.data_dir)
            shape, classes = tuple(data.x.shape[1:]), len(data.classes)
            save_model(
                model, args.out / f"{args.case}-{seed}.safetensors",
                architecture=Architecture(name=f"zoo:{case.network}", shape=shape, classes=classes),
            )  # fmt: skip


if __name__ == "__main__":
    main()
