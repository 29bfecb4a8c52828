"""What the engine costs beside the passes it cannot do without: PGD-40 through it against a bare loop, and a limit.

limit      forward and input gradient of the summed logits, 40 times, and one forward: no loss, no step, no verdict
bare       the loop that one would write by hand: cross-entropy, sign, one clamp to precomputed bounds; a last verdict
held       the engine, which judges every look and keeps the best, in lanes so wide that it drops no row
stubborn   the engine as it is, on rows that never fall, against the bare loop on the same rows
compacted  the engine as it is, which drops the rows that fell, on all rows, against the bare loop

Goals: held and stubborn at most 3 % over bare; compacted below bare wherever rows fall. Time is CPU seconds of the
whole process, contestants interleaved; the ratio is the median of the ratios within each round, with their range.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from common import NETWORKS, arguments, heading, interleaved, mnist, network, ratio
from torch import Tensor, nn
from torch.nn import functional as F

import adamant as am
from adamant.access import WhiteBox
from adamant.calling import Caller, untouched
from adamant.desk import Desk, Problem
from adamant.engine import _drive, run
from adamant.goals import Untargeted
from adamant.random import Rng

GOAL = 0.03


def limit(model: nn.Module, x: Tensor, steps: int) -> None:
    for _ in range(steps):
        z = x.detach().requires_grad_(True)
        torch.autograd.grad(model(z).sum(), z)
    with torch.no_grad():
        model(x)


def bare(model: nn.Module, x: Tensor, y: Tensor, eps: float, rate: float, steps: int) -> Tensor:
    low, high = (x - eps).clamp_(0, 1), (x + eps).clamp_(0, 1)
    z = torch.empty_like(x).uniform_(-eps, eps).add_(x).clamp_(0, 1)
    for _ in range(steps):
        z.requires_grad_(True)
        (g,) = torch.autograd.grad(F.cross_entropy(model(z), y, reduction="sum"), z)
        z = z.detach().add_(g.sign_(), alpha=rate * eps).clamp_(low, high)
    with torch.no_grad():
        return model(z).argmax(1) != y


def held(model: nn.Module, x: Tensor, y: Tensor, attack: am.PGD, threat: am.Linf) -> None:
    """The engine's own loop, in lanes so wide that no row is dropped before all have fallen."""
    with untouched(model):
        settings = am.Settings(lanes=len(x))
        nobody = torch.zeros(len(x), dtype=torch.bool)
        desk = Desk(Caller(model, settings), x, 10, nobody, len(x), smallest=False)
        goal = Untargeted(y)
        p = Problem(x, goal, goal, threat, WhiteBox(), Rng.of(0, len(x)), torch.arange(len(x)), desk)
        _drive(attack, p, desk)


def per_batch(task: Callable[[Tensor, Tensor], object], x: Tensor, y: Tensor, batch: int) -> Callable[[], None]:
    def whole() -> None:
        for part, labels in zip(x.split(batch), y.split(batch), strict=True):
            task(part, labels)

    return whole


def compare(
    name: str, model: nn.Module, pool: tuple[Tensor, Tensor], eps: float, attack: am.PGD, batch: int, rounds: int
) -> None:
    """One table: the first half of the pool as it is, and as many rows of the pool that never fall."""
    for p in model.parameters():
        p.requires_grad_(False)
    threat, settings = am.Linf(eps), am.Settings(batch_size=batch)
    px, py = pool

    def engine(rows: Tensor) -> Callable[[], am.Outcome]:
        x, y, rng = px[rows], py[rows], Rng.of(0, rows)
        return lambda: run(attack, model, x, Untargeted(y), threat, rng=rng, settings=settings)

    def loop(rows: Tensor) -> Callable[[], None]:
        x, y = px[rows], py[rows]
        return per_batch(lambda x, y: bare(model, x, y, eps, attack.rate, attack.steps), x, y, batch)

    status = engine(torch.arange(len(px)))().status
    first = torch.arange(len(px) // 2)
    stood = (status == am.Status.ROBUST).nonzero().squeeze(1)
    stood = stood[: min(len(first), len(stood) // batch * batch)]  # whole batches: both sides see the same shapes
    tasks = {
        "limit": per_batch(lambda x, _: limit(model, x, attack.steps), px[first], py[first], batch),
        "bare": loop(first),
        "held": per_batch(lambda x, y: held(model, x, y, attack, threat), px[first], py[first], batch),
        "compacted": engine(first),
    }
    if len(stood):
        tasks |= {"bare, same rows": loop(stood), "stubborn": engine(stood)}
    gc.collect()
    clocks = interleaved(tasks, rounds)
    fell = int((status[first] == am.Status.BROKEN).sum())
    print(f"{name}, batch {batch}, {torch.get_num_threads()} threads: {len(first)} images, {fell} fall")
    against = {"limit": "bare", "held": "bare", "compacted": "bare", "stubborn": "bare, same rows"}
    medians: dict[str, float] = {}
    for task, times in clocks.items():
        cpu, wall = sorted(c.cpu for c in times), sorted(c.wall for c in times)
        text = f"  {task:<16} CPU {cpu[len(cpu) // 2]:7.3f} s, wall {wall[len(wall) // 2]:7.3f} s"
        if other := against.get(task):
            by_cpu = ratio([c.cpu for c in times], [c.cpu for c in clocks[other]])
            by_wall = ratio([c.wall for c in times], [c.wall for c in clocks[other]])
            text += f"   over bare: CPU {by_cpu}, wall {by_wall}"
            medians[task] = float(by_cpu.split()[0])
        print(text, flush=True)
    missed = [t for t in ("held", "stubborn") if medians.get(t, 0) > 1 + GOAL]
    missed += ["compacted"] if fell and medians["compacted"] >= 1 else []
    print(f"  goals: {'missed by ' + ', '.join(missed) if missed else 'met'}\n", flush=True)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--no-resnet", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.threads, args.batch_sizes, args.networks = 3, [1], [128], args.networks[:1]
    heading(f"PGD-40 through the engine against a bare loop, {args.rows} images, {args.rounds} rounds")
    print()
    torch.manual_seed(0)
    data = mnist(2 * args.rows, args.data_dir)
    for name in args.networks:
        model = network(name, args.models_dir)
        for threads in args.threads:
            torch.set_num_threads(threads)
            for batch in args.batch_sizes:
                compare(name, model, (data.x, data.y), 0.3, am.PGD(rate=1 / 30), batch, args.rounds)
    if not args.no_resnet and not args.quick:
        resnet = am.load_model("zoo:preact-resnet18", shape=(3, 32, 32), classes=10)
        x = torch.rand(32, 3, 32, 32)
        with torch.no_grad():
            y = resnet(x).argmax(1)
        for threads in args.threads:
            torch.set_num_threads(threads)
            compare("preact-resnet18", resnet, (x, y), 1e-5, am.PGD(steps=4), 16, args.rounds)


if __name__ == "__main__":
    main()
