"""AutoAttack and our three suites side by side: robust accuracy, passes and seconds on many networks.

The reference networks come from --models-dir. The others are trained by this command, on MNIST, Fashion-MNIST,
CIFAR-10 and traffic signs, the ordinary way, adversarially, and in ways that mask gradients; they are kept in
--networks, so that a second run does not train again. AutoAttack is our `autoattack_v1`, whose parts are tested
against the authors' code: their package is in no registry.

The settings of the suites were chosen on test rows 5000 and on of MNIST and CIFAR-10, with mnist_cnn_pgd, an
adversarial and a one-step network on each, and wrapped defences around mnist_cnn_pgd. What is held out, and was not
looked at before: all networks on Fashion-MNIST and on traffic signs, mnist_lenet5_clean, and the first test rows.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from common import NETWORKS, arguments, counted, heading, network, timed
from torch import Tensor, nn

import adamant as am
from adamant.access import WhiteBox
from adamant.attacks import Union
from adamant.engine import run
from adamant.evaluation import AUTOATTACK, QUICK, STANDARD, STRICT, Suite
from adamant.goals import Untargeted
from adamant.random import Rng
from adamant.referee import referee
from adamant.runtime.knobs import Ramp
from adamant.training import Plan

PLAIN = am.recipes.standard()
TOUGH = am.recipes.madry(attack=am.PGD(steps=5, rate=0.3), eps=Ramp(until=0.6))
ONE_STEP = am.recipes.madry(attack=am.PGD(steps=1, rate=1.25), eps=Ramp(until=0.3))


@dataclass(frozen=True)
class Training:
    """How a network is made."""

    data: str
    recipe: am.Recipe
    eps: float
    rows: int | None
    epochs: int


TRAINED = {
    "mnist_adv": Training("mnist", TOUGH, 0.2, 15000, 4),
    "fashion_plain": Training("fashion_mnist", PLAIN, 0.1, 20000, 4),
    "fashion_adv": Training("fashion_mnist", TOUGH, 0.1, 20000, 5),
    "fashion_one_step": Training("fashion_mnist", ONE_STEP, 0.1, 20000, 4),
    "cifar_plain": Training("cifar10_jpeg", PLAIN, 8 / 255, 20000, 6),
    "cifar_adv": Training("cifar10_jpeg", TOUGH, 8 / 255, 30000, 5),
    "signs_plain": Training("gtsrb_32", PLAIN, 4 / 255, None, 6),
    "signs_adv": Training("gtsrb_32", TOUGH, 4 / 255, None, 8),
    "signs_one_step": Training("gtsrb_32", ONE_STEP, 4 / 255, None, 6),
}
# network, eps, share of --rows (AutoAttack on LeNet-5 is slow)
CASES = [
    ("mnist_cnn_pgd", 0.3, 1.0), ("mnist_cnn_pgd", 0.2, 1.0),
    ("mnist_lenet5_clean", 0.3, 1.0), ("mnist_lenet5_clean", 0.2, 1.0),
    ("mnist_lenet5_adv", 0.3, 0.3), ("mnist_lenet5_adv", 0.2, 0.3),
    ("mnist_adv", 0.2, 0.4), ("fashion_plain", 0.02, 0.4), ("fashion_adv", 0.1, 0.4), ("fashion_one_step", 0.1, 0.4),
    ("cifar_plain", 1 / 255, 0.4), ("cifar_adv", 8 / 255, 0.4),
    ("signs_plain", 4 / 255, 0.4), ("signs_adv", 4 / 255, 0.4), ("signs_one_step", 4 / 255, 0.4),
    ("quantised:fashion_adv", 0.1, 0.2), ("straight:fashion_adv", 0.1, 0.2), ("winners:fashion_adv", 0.1, 0.2),
    ("hot:fashion_adv", 0.1, 0.2),
]  # fmt: skip


class Quantised(nn.Module):
    """A network behind rounding to `levels` steps: no gradient, or that of the input as it was."""

    def __init__(self, model: nn.Module, levels: int, *, straight: bool) -> None:
        super().__init__()
        self.model, self.levels, self.straight = model, levels, straight

    def forward(self, x: Tensor) -> Tensor:
        rounded = (x * self.levels).round() / self.levels
        return self.model(x + (rounded - x).detach() if self.straight else rounded)


class Winners(nn.Module):
    """Only the largest share of the activations of a row is kept (Xiao et al., 2020, arXiv:1905.10510)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, h: Tensor) -> Tensor:
        least = h.topk(max(1, int(h.shape[1] * self.share)), dim=1).values[:, -1:]
        return torch.where(h >= least, h, 0.0)


class Hot(nn.Module):
    """A network whose logits are so large that cross-entropy has no gradient."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return 300 * self.model(x)


def trained(name: str, args: Any) -> nn.Module:
    """Trained once, and kept."""
    how, path = TRAINED[name], args.networks / f"{name}.safetensors"
    train = am.load_data(how.data, split="train", limit=how.rows, data_dir=args.data_dir)
    model = am.load_model("zoo:cnn", shape=tuple(train.x.shape[1:]), classes=len(train.classes))
    if path.is_file():
        safetensors.torch.load_model(model, path)
        return model.eval()
    print(f"training {name}", flush=True)
    model = am.train(model, train, how.recipe, am.Linf(how.eps), plan=Plan(epochs=how.epochs, batch_size=64), seed=0)
    args.networks.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(model.state_dict(), path)
    return model.eval()


def build(name: str, args: Any) -> tuple[nn.Module, am.DataSet]:
    """A network and the test set that it is for."""
    kind, _, base = name.rpartition(":")
    data = TRAINED[base].data if base in TRAINED else "mnist"
    model = trained(base, args) if base in TRAINED else network(base, args.models_dir)
    match kind:
        case "quantised" | "straight":
            model = Quantised(model, 16 if kind == "straight" else 8, straight=kind == "straight")
        case "winners":
            last = max(i for i, layer in enumerate(model) if isinstance(layer, nn.ReLU))  # type: ignore[arg-type]
            model[last] = Winners(0.2)  # type: ignore[operator]
        case "hot":
            model = Hot(model)
        case _:
            pass
    return model.eval(), am.load_data(data, split="test", data_dir=args.data_dir)


def measure(suite: Suite, model: nn.Module, x: Tensor, y: Tensor, threat: Any, seed: int) -> dict[str, Any]:
    """One suite on one network."""
    found: list[am.Outcome] = []
    plan = suite.course(threat, WhiteBox())

    def go() -> None:
        found.append(run(Union(*plan.attacks), model, x, Untargeted(y), threat, rng=Rng.of(seed, len(x))))

    clock, out = timed(go), found[0]
    n = len(x)
    stands = out.status == am.Status.ROBUST
    stages = {name: int((out.part == i).sum()) for i, name in enumerate(plan.names)}
    passes = [float(v.double().sum()) / n for v in (out.forwards, out.backwards, out.checks)]
    return {"suite": suite.name, "stands": stands, "passes": passes, "seconds": clock.cpu, "broke": stages}


def peers(args: Any) -> None:
    """What other libraries call AutoAttack, on the first 100 test images of MNIST, judged by our referee.

    torchattacks runs ten steps under that name, ART another list of attacks: only ours and the authors' compare.
    """
    import torchattacks  # pyright: ignore[reportMissingImports]
    from art.attacks.evasion import AutoAttack as Art  # pyright: ignore[reportMissingImports]
    from attacks import art  # the wrapper of the benchmark beside this one

    model, test = build("mnist_cnn_pgd", args)
    x, y, threat, n = test.x[:100], test.y[:100].long(), am.Linf(0.3), 100
    print("| library | stand, by the referee | forwards + backwards per image | CPU s |")
    print("|---|---:|---:|---:|")
    theirs = {
        "torchattacks.AutoAttack": lambda: torchattacks.AutoAttack(model, norm="Linf", eps=0.3, n_classes=10, seed=0),
        "art AutoAttack": lambda: Art(art(model), eps=0.3, eps_step=0.06, batch_size=100),
    }
    for name, make in theirs.items():
        found: list[Any] = []
        with counted(model) as passes:
            clock = timed(lambda make=make, found=found: found.append(referee(make(), model, x, Untargeted(y), threat)))
        out = found[0].outcome
        stands = n - int((out.broken | (out.status == am.Status.WRONG_ALREADY)).sum())
        print(
            f"| {name} | {stands} | {passes.forwards / n:.0f} + {passes.backwards / n:.0f} | {clock.cpu:.1f} |",
            flush=True,
        )
    for suite in (AUTOATTACK, QUICK, STANDARD, STRICT):
        mine = measure(suite, model, x, y, threat, args.seed)
        a, b, c = mine["passes"]
        print(
            f"| {suite.name} | {int(mine['stands'].sum())} | {a + c:.0f} + {b:.0f} | {mine['seconds']:.1f} |",
            flush=True,
        )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=1000, help="of the reference networks; others a share of it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="some networks")
    parser.add_argument("--networks", type=Path, default=Path("runs/benchmarks/networks"))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/evaluation.jsonl"))
    parser.add_argument("--skip-autoattack", action="store_true")
    parser.add_argument("--peers", action="store_true", help="what other libraries call AutoAttack, and nothing else")
    args = parser.parse_args()
    if args.data_dir is None:
        sys.exit("Say with --data-dir or ADAMANT_DATA_DIR where the data sets are.")
    torch.set_num_threads(1)
    rows = 100 if args.quick else args.rows
    if args.peers:
        heading("AutoAttack by other libraries, mnist_cnn_pgd, Linf 0.3, first 100 test images, one thread")
        peers(args)
        return
    heading(f"AutoAttack and our suites, Linf, seed {args.seed}, one thread; CPU seconds; CIFAR-10 is a JPEG copy")
    print("| network | eps | rows | suite | robust | missed, extra | passes per row | fewer | CPU s | fewer |")
    print("|---|---:|---:|---|---:|---:|---:|---:|---:|---:|")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for name, eps, share in CASES:
        if args.only and name not in args.only:
            continue
        model, test = build(name, args)
        n = min(round(rows * share), len(test.y))
        x, y, threat = test.x[:n], test.y[:n].long(), am.Linf(eps)
        suites = [*(() if args.skip_autoattack else (AUTOATTACK,)), QUICK, STANDARD, STRICT]
        first: dict[str, Any] | None = None
        for suite in suites:
            found = measure(suite, model, x, y, threat, args.seed)
            first = first or found
            missed = int((found["stands"] & ~first["stands"]).sum())
            extra = int((first["stands"] & ~found["stands"]).sum())
            passes, spent = sum(found["passes"]), sum(first["passes"])
            stands = int(found["stands"].sum())
            print(
                f"| {name} | {eps:.4g} | {n} | {suite.name} | {stands} ({stands / n:.1%}) | {missed}, {extra} "
                f"| {passes:.0f} | {spent / passes:.0f} | {found['seconds']:.1f} | "
                f"{first['seconds'] / max(found['seconds'], 1e-9):.0f} |",
                flush=True,
            )
            line = {**found, "stands": stands, "network": name, "eps": eps, "rows": n, "missed": missed, "extra": extra}
            with args.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    assert set(NETWORKS) >= {name for name, _, _ in CASES if name not in TRAINED and ":" not in name}
    main()
