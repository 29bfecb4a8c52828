"""The same Keras network hardened on each backend, and by its twin in torch, from the same weights: within a point?

Each in a process of its own, as a process has one backend: adversarial training on rows of MNIST (conv 32, pool, dense,
Linf 0.1), then PGD-40 and `quick_v1` on test rows, and the saved file asked in plain Keras. One thread, CPU seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from common import arguments, heading, mnist
from torch import Tensor, nn
from torch.nn import functional as F

import adamant as am
from adamant.evaluation import QUICK
from adamant.training import Adam, Plan

PLACES = ("twin", "torch", "tensorflow", "jax")
THREAT = am.Linf(0.1)


class Twin(nn.Module):
    """The network below in torch, with the weights of a Keras model in their own layouts."""

    def __init__(self, of: nn.Module) -> None:
        super().__init__()
        for name, value in of.named_parameters():
            self.register_parameter(name, nn.Parameter(value.detach().clone()))

    def forward(self, x: Tensor) -> Tensor:
        first, bias, last, offset = self.parameters()
        z = F.relu(F.conv2d(x, first.permute(3, 2, 0, 1), bias))
        return F.max_pool2d(z, 2).permute(0, 2, 3, 1).flatten(1) @ last + offset


def write_start(path: Path) -> None:
    """The first weights, the same for all."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    ).save(path)


def trained(place: str, folder: Path, args: Any) -> dict[str, Any]:
    """One training in this process, and its figures."""
    rows, epochs, judged = (512, 1, 64) if args.quick else (args.rows, args.epochs, args.judged)
    model = am.load_model(folder / "start.keras")
    model = Twin(model) if place == "twin" else model
    data = am.load_data("mnist", split="train", limit=rows, data_dir=args.data_dir)
    held = am.load_data("mnist", split="val", limit=200, data_dir=args.data_dir)
    test = mnist(judged, args.data_dir)
    recipe = am.recipes.madry(attack=am.PGD(steps=args.steps, rate=0.5))
    plan = Plan(epochs=epochs, batch_size=128, optimizer=Adam(rate=2e-3), select=am.PGD(steps=5), select_rows=200)
    began = time.process_time()
    hard = am.train(model, data, recipe, THREAT, validation=held, plan=plan)
    seconds = time.process_time() - began
    pgd = am.attack(am.PGD(steps=40), hard, test.x, test.y, THREAT)
    found = am.audit(hard, test, THREAT, suite=QUICK)
    figures = {
        "place": place, "clean": found.clean_accuracy, "pgd40": pgd.robust_accuracy, "robust": found.robust_accuracy,
        "seconds": round(seconds, 1), "same_in_keras": None,
    }  # fmt: skip
    if place != "twin":
        import keras

        am.save_model(hard, folder / f"{place}.keras")
        said = keras.models.load_model(folder / f"{place}.keras")(test.x.permute(0, 2, 3, 1).numpy(), training=False)
        with torch.no_grad():
            ours = hard(test.x).softmax(1)
        figures["same_in_keras"] = float((torch.tensor(keras.ops.convert_to_numpy(said)) - ours).abs().max())
    return figures


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=6400)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="of PGD in training")
    parser.add_argument("--judged", type=int, default=1000, help="rows of the test set")
    parser.add_argument("--places", nargs="+", default=PLACES, choices=PLACES)
    parser.add_argument("--only", help="used by the benchmark itself: this one, in this process")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.only == "start":
        write_start(args.folder / "start.keras")
    elif args.only:
        print(json.dumps(trained(args.only, args.folder, args)))
    else:
        heading("Hardening a Keras model on each backend")
        compare(args)


def compare(args: Any) -> None:
    """Run all of them and print the table."""
    print("| where | clean | PGD-40 | quick_v1 | training, CPU s | file in plain Keras differs by |")
    print("|---|---|---|---|---|---|", flush=True)
    with TemporaryDirectory() as folder:
        for place in ("start", *args.places):
            backend = place if place in PLACES[1:] else "torch"
            env = {**os.environ, "KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
            words = [sys.executable, __file__, *sys.argv[1:], "--only", place, "--folder", folder]
            done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr[-3000:])
            if place != "start":
                f = json.loads(done.stdout.splitlines()[-1])
                gap = "" if f["same_in_keras"] is None else f"{f['same_in_keras']:.0e}"
                shares = " | ".join(f"{f[k]:.1%}" for k in ("clean", "pgd40", "robust"))
                print(f"| {place} | {shares} | {f['seconds']} | {gap} |", flush=True)


if __name__ == "__main__":
    main()
