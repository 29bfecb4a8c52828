"""What the benchmarks share: where models and data are, passes counted, clocks, and the machine in words."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import adamant as am

# Weights that others trained, and the networks of the zoo that they fit.
NETWORKS = {
    "mnist_cnn_pgd": "zoo:cnn",
    "mnist_lenet5_adv": "zoo:lenet5",
    "mnist_lenet5_clean": "zoo:lenet5",
}


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--models-dir", type=Path, default=os.environ.get("ADAMANT_MODELS_DIR"))
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("ADAMANT_DATA_DIR"))
    parser.add_argument("--quick", action="store_true", help="under a minute: a smaller sample, for a first look only")
    return parser


def network(name: str, folder: Path | None) -> nn.Module:
    """One of the reference networks, in eval mode; leaves with a sentence where its weights are not to be found."""
    path = Path(folder or ".") / f"{name}.safetensors"
    if folder is None or not path.is_file():
        sys.exit(
            f"This benchmark needs the weights {path.name}: say in which folder they are with --models-dir "
            "or the environment variable ADAMANT_MODELS_DIR."
        )
    return am.load_model(path, arch=NETWORKS[name], shape=(1, 28, 28), classes=10)


def mnist(rows: int, folder: Path | None):
    """The first rows of the test set of MNIST."""
    if folder is None or not (Path(folder) / "mnist.npz").is_file():
        sys.exit(
            "This benchmark needs mnist.npz (the Keras layout): say in which folder it is with --data-dir "
            "or the environment variable ADAMANT_DATA_DIR."
        )
    return am.load_data("mnist", split="test", limit=rows, data_dir=folder)


@dataclass
class Passes:
    """Images that went through a forward, and through a backward, of one model."""

    forwards: int = 0
    backwards: int = 0


@contextmanager
def counted(model: nn.Module) -> Generator[Passes]:
    """Count at the model itself, whoever calls it; copies that fill up a batch are counted too."""
    passes = Passes()

    def on_gradient(g: Tensor) -> None:
        passes.backwards += len(g)

    def on_forward(_module: nn.Module, _inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        passes.forwards += len(logits)
        if logits.requires_grad:
            logits.register_hook(on_gradient)

    handle = model.register_forward_hook(on_forward)
    try:
        yield passes
    finally:
        handle.remove()


@dataclass(frozen=True)
class Clock:
    """CPU seconds of the whole process, which a busy machine hardly moves, and seconds on the wall, which it does."""

    cpu: float
    wall: float


def timed(task: Callable[[], object]) -> Clock:
    """How long a task takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    task()
    return Clock(time.process_time() - cpu, time.perf_counter() - wall)


def interleaved(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[Clock]]:
    """Every task once per round, forwards and backwards in turn (A B C, C B A), after one unmeasured round."""
    clocks: dict[str, list[Clock]] = {name: [] for name in tasks}
    for r in range(-1, rounds):
        for name in list(tasks) if r % 2 else reversed(tasks):
            clock = timed(tasks[name])
            if r >= 0:
                clocks[name].append(clock)
    return clocks


def ratio(ours: list[float], theirs: list[float]) -> str:
    """The median of the ratios within each round, and their range."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.3f} [{min(ratios):.3f}..{max(ratios):.3f}]"


def heading(what: str) -> None:
    """What was run, on which machine, with which versions."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        name = next((s.split(":")[1].strip() for s in cpuinfo.read_text().splitlines() if "model name" in s), name)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{what}\n{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores {name}{load}")
    print(f"adamant {am.__version__}, torch {torch.__version__}, Python {platform.python_version()}", flush=True)
