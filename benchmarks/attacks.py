"""Our attacks and those of other libraries: one model, the same images and budgets, interleaved, every success judged.

For each contest a line per contender: success among the rows that the model had right, as the referee judges it (inside
the threat model, fooled when asked alone, rounding of a millionth of the budget allowed), claims that were false, the
median size over successes, forwards and backwards per image as a hook on the model counts them, CPU milliseconds per
image, and how many times ours that is (median of the rounds, with their range). Who is not installed is left out.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from common import arguments, counted, heading, interleaved, mnist, network
from torch import Tensor, nn

import adamant as am
from adamant.adversary import Attack, Composite
from adamant.engine import run
from adamant.goals import Goal, Targeted, Untargeted
from adamant.random import Rng
from adamant.referee import craft, referee
from adamant.threats import Projectable

Make = Callable[[nn.Module], Any]  # another library's attack, for this model


@dataclass(frozen=True)
class Contest:
    """One attack of the literature, and who has it."""

    name: str
    threat: Projectable
    ours: dict[str, Attack | Composite]
    theirs: dict[str, Make]
    targeted: bool = False
    rows: int = 128  # a multiple of the lanes: rows that fill up a batch would be ours alone to pay


def library(name: str) -> Any:
    """Another library, or None where it is not installed."""
    for idle in ("visdom", "torchvision"):  # adv_lib imports them for pictures and distances that are not used here
        if idle not in sys.modules and importlib.util.find_spec(idle) is None:
            stand_in = types.ModuleType(idle)
            stand_in.__dict__.update(Visdom=object, models=types.ModuleType(f"{idle}.models"))
            sys.modules[idle] = stand_in
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def art(model: nn.Module) -> Any:
    """ART's wrapper."""
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model=model, loss=nn.CrossEntropyLoss(), input_shape=(1, 28, 28), nb_classes=10, clip_values=(0.0, 1.0)
    )


def contests(steps: int) -> list[Contest]:
    """What is compared; the peers' settings are those of their papers, or ours where these differ."""
    fb, ta, al, ar = (
        library("foolbox"),
        library("torchattacks"),
        library("adv_lib.attacks"),
        library("art.attacks.evasion"),
    )

    def present(**makers: tuple[Any, Make]) -> dict[str, Make]:
        return {name: make for name, (there, make) in makers.items() if there is not None}

    eps, rate = 0.3, 1 / 30
    return [
        Contest(
            f"PGD-{steps}, linf:0.3", am.Linf(eps), {"PGD": am.PGD(steps=steps, rate=rate)},
            present(
                foolbox=(fb, lambda m: fb.attacks.LinfPGD(steps=steps, rel_stepsize=rate)),
                torchattacks=(ta, lambda m: ta.PGD(m, eps=eps, alpha=rate * eps, steps=steps)),
                adv_lib=(al, lambda m: _fixed(al.pgd_linf, ε=eps, steps=steps, absolute_step_size=rate * eps)),
                art=(ar, lambda m: ar.ProjectedGradientDescent(
                    art(m), eps=eps, eps_step=rate * eps, max_iter=steps, num_random_init=1, batch_size=128,
                    verbose=False,
                )),
            ),
        ),
        Contest(
            "DeepFool, l2", am.L2(), {"DeepFool": am.DeepFool()},
            present(
                foolbox=(fb, lambda m: fb.attacks.L2DeepFoolAttack(steps=50)),
                torchattacks=(ta, lambda m: ta.DeepFool(m, steps=50)),
                adv_lib=(al, lambda m: _fixed(al.df, steps=50)),
                art=(ar, lambda m: ar.DeepFool(art(m), max_iter=50, batch_size=128, verbose=False)),
            ),
        ),
        Contest(
            "C&W and its like, l2", am.L2(), {"DDN": am.DDN(), **_known("CarliniWagner")},
            present(
                foolbox=(fb, lambda m: fb.attacks.L2CarliniWagnerAttack(
                    binary_search_steps=5, steps=200, stepsize=0.01, initial_const=0.1
                )),
                foolbox_DDN=(fb, lambda m: fb.attacks.DDNAttack(steps=100)),
                torchattacks=(ta, lambda m: ta.CW(m, c=1, steps=1000)),
                adv_lib=(al, lambda m: _fixed(
                    al.carlini_wagner_l2, binary_search_steps=5, num_steps=200, learning_rate=0.01, initial_const=0.1
                )),
                adv_lib_DDN=(al, lambda m: _fixed(al.ddn, steps=100)),
                art=(ar, lambda m: ar.CarliniL2Method(
                    art(m), binary_search_steps=5, max_iter=200, learning_rate=0.01, initial_const=0.1, batch_size=20,
                    verbose=False,
                )),
            ),
            rows=16,
        ),
        Contest(
            "JSMA, targeted y+1", am.L0(78), _known("JSMA"),
            present(
                torchattacks=(ta, lambda m: ta.JSMA(m, theta=1.0, gamma=0.1)),
                art=(ar, lambda m: ar.SaliencyMapMethod(art(m), theta=1.0, gamma=0.1, batch_size=20, verbose=False)),
            ),
            targeted=True, rows=32,
        ),
    ]  # fmt: skip


def _known(name: str) -> dict[str, Any]:
    return {name: getattr(am, name)()} if hasattr(am, name) else {}


def _fixed(attack: Callable[..., Tensor], **settings: Any) -> Callable[..., Tensor]:
    """adv_lib's functions take their settings where they are called."""

    def call(model: nn.Module, inputs: Tensor, labels: Tensor, targeted: bool) -> Tensor:
        return attack(model=model, inputs=inputs, labels=labels, targeted=targeted, **settings)

    call.__module__ = "adv_lib"
    return call


def hold(contest: Contest, model: nn.Module, data: Any, rounds: int) -> None:
    """One table."""
    x, y = data.x[: contest.rows], data.y[: contest.rows]
    goal: Goal = Targeted(y, (y + 1) % 10) if contest.targeted else Untargeted(y)
    with torch.no_grad():
        right = model(x).argmax(1) == y
    peers = {name: make(model) for name, make in contest.theirs.items()}

    def of_ours(attack: Any) -> Callable[[], am.Outcome]:
        return lambda: run(attack, model, x, goal, contest.threat, rng=Rng.of(0, len(x)))

    def of_theirs(attack: Any) -> Callable[[], object]:
        return lambda: craft(attack, model, x.clone(), goal, contest.threat)

    tasks: dict[str, Callable[[], object]] = {f"adamant {n}": of_ours(a) for n, a in contest.ours.items()}
    tasks |= {name: of_theirs(attack) for name, attack in peers.items()}
    silent = {name: _silent(task) for name, task in tasks.items()}
    clocks = interleaved(silent, rounds)
    print(f"{contest.name}: {int(right.sum())} of {len(x)} images that the model has right")
    print(
        f"  {'':<22}{'success':>8}{'false':>7}{'median':>9}{'forwards':>10}{'backwards':>10}{'CPU ms':>9}   times ours"
    )
    first = next(iter(tasks))
    for name in tasks:
        with counted(model) as passes:
            silent[name]()
        if name.startswith("adamant "):
            out = of_ours(contest.ours[name.removeprefix("adamant ")])()
            broken, size, false = out.broken, out.size, 0
        else:
            ruling = referee(peers[name], model, x, goal, contest.threat)
            broken, size, false = ruling.outcome.broken, ruling.outcome.size, int(ruling.false_claims.sum())
        ms = [c.cpu / len(x) * 1000 for c in clocks[name]]
        times = sorted(a.cpu / b.cpu for a, b in zip(clocks[name], clocks[first], strict=True))
        median = f"{float(size[broken].median()):.4g}" if broken.any() else "-"
        print(
            f"  {name:<22}{int(broken.sum()) / max(1, int(right.sum())):>8.3f}{false:>7}{median:>9}"
            f"{passes.forwards / len(x):>10.1f}{passes.backwards / len(x):>10.1f}{sorted(ms)[len(ms) // 2]:>9.2f}"
            f"   {times[len(times) // 2]:.2f} [{times[0]:.2f}..{times[-1]:.2f}]",
            flush=True,
        )
    print()


def _silent(task: Callable[[], object]) -> Callable[[], None]:
    """Libraries print bars and warnings."""

    def go() -> None:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            task()

    return go


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", nargs="*", default=["mnist_lenet5_clean", "mnist_cnn_pgd"])
    parser.add_argument("--only", help="contests whose name holds this word")
    args = parser.parse_args()
    torch.set_num_threads(1)
    heading(f"Attacks of several libraries, MNIST test images, one thread, {args.rounds} rounds")
    print()
    rounds, networks = (1, args.networks[:1]) if args.quick else (args.rounds, args.networks)
    data = mnist(128, args.data_dir)
    for name in networks:
        model = network(name, args.models_dir)
        print(f"--- {name}\n")
        for contest in contests(40):
            if (args.only or "").lower() in contest.name.lower() and contest.ours:
                hold(contest, model, data, rounds)


if __name__ == "__main__":
    main()
