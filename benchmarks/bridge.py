"""The bridge: one network in every framework, attacked through it and natively; beside Foolbox and ART on TensorFlow.

Each framework computes in a process of its own, with one thread. The attack that is timed is PGD-40, batch 128.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from common import arguments, heading, interleaved, mnist, network
from torch import nn
from torch.nn import functional as F

import adamant as am
from adamant.calling import untouched
from adamant.engine import perturb
from adamant.goals import Untargeted
from adamant.models import from_jax, from_tensorflow
from adamant.random import Rng

FRAMEWORKS = ("torch", "tensorflow", "jax", "nnx", "keras-torch", "keras-tensorflow", "keras-jax", "onnx")
STEPS, RATE, BATCH, SHAPE = 40, 0.01, 128, (28, 28, 1)
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "OMP_NUM_THREADS": "1",
         "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}  # fmt: skip


class Net(nn.Module):
    """Two convolutions, each of stride 2 or with a pool behind it, and dense layers, of weights with channels last."""

    def __init__(self, w: list[np.ndarray]) -> None:
        super().__init__()
        held = [torch.from_numpy(v) for v in w]
        held = [v.permute(3, 2, 0, 1) if v.ndim == 4 else v.T if v.ndim == 2 else v for v in held]
        self.w = nn.ParameterList([v.contiguous() for v in held])

    def forward(self, x):
        w, h = list(self.w), x
        for k, b in (w[:2], w[2:4]):
            h = F.conv2d(h, k, b, stride=_stride(w), padding=1).relu()
            h = h if _stride(w) == 2 else F.max_pool2d(h, 2)
        h = h.permute(0, 2, 3, 1).flatten(1)
        for k, b in zip(w[4:-2:2], w[5:-2:2], strict=True):
            h = F.linear(h, k, b).relu()
        return F.linear(h, *w[-2:])


def _stride(w) -> int:
    return 2 if w[0].shape[-1] == 4 or w[0].shape[0] == 4 else 1


def robust(folder: str) -> list[np.ndarray]:
    """The weights of `mnist_cnn_pgd` (two convolutions 4x4 of stride 2) with the channels last."""
    w = [p.detach() for p in network("mnist_cnn_pgd", Path(folder)).parameters()]
    w[4] = w[4].view(100, 32, 7, 7).permute(0, 2, 3, 1).flatten(1)
    return [
        np.ascontiguousarray((v.permute(2, 3, 1, 0) if v.ndim == 4 else v.T if v.ndim == 2 else v).numpy()) for v in w
    ]


def tutorial() -> list[np.ndarray]:
    """The network of the classic tutorials, 3x3 with 32 and 64 filters and pools, untrained: for the clock."""
    shapes = [
        ((3, 3, 1, 32), 0.3),
        ((32,), 0.1),
        ((3, 3, 32, 64), 0.06),
        ((64,), 0.1),
        ((3136, 10), 0.02),
        ((10,), 0.1),
    ]
    draw = np.random.default_rng(0)
    return [draw.normal(size=shape, scale=scale).astype("float32") for shape, scale in shapes]


# ---------------------------------------------------------------------------------------------------------------------
# The network in each framework as torch sees it, and the same PGD written in that framework and compiled by it


def as_torch(w):
    net = Net(w).requires_grad_(False)

    def native(x, y, eps):
        z = x.clone()
        for _ in range(STEPS):
            z.requires_grad_()
            (g,) = torch.autograd.grad(F.cross_entropy(net(z), y, reduction="sum"), z)
            z = (x + (z.detach() + RATE * g.sign() - x).clamp(-eps, eps)).clamp(0, 1)
        return z.numpy()

    return net.eval(), native


def as_tensorflow(w):
    tf = import_module("tensorflow")

    class Model(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = [tf.Variable(v, name=f"w{i}") for i, v in enumerate(w)]

        @tf.function
        def __call__(self, x):
            h = x
            for k, b in (self.w[:2], self.w[2:4]):
                h = tf.nn.relu(tf.nn.conv2d(h, k, _stride(w), "SAME") + b)
                h = h if _stride(w) == 2 else tf.nn.max_pool2d(h, 2, 2, "VALID")
            h = tf.reshape(h, [-1, w[4].shape[0]])
            for k, b in zip(self.w[4:-2:2], self.w[5:-2:2], strict=True):
                h = tf.nn.relu(h @ k + b)
            return h @ self.w[-2] + self.w[-1]

    model = Model()
    return from_tensorflow(model, shape=SHAPE), tf_pgd(model.__call__.python_function)


def tf_pgd(model):
    tf = import_module("tensorflow")

    @tf.function
    def step(x, z, y, eps):  # faster than the whole loop as one graph
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(z)
            loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(z)))
        g = tape.gradient(loss, z)
        return tf.clip_by_value(x + tf.clip_by_value(z + RATE * tf.sign(g) - x, -eps, eps), 0.0, 1.0)

    def native(x, y, eps):
        x, y, eps = tf.constant(x), tf.constant(y), tf.constant(eps, tf.float32)
        z = x
        for _ in range(STEPS):
            z = step(x, z, y, eps)
        return z.numpy()

    return native


def jax_pgd(net):
    jax = import_module("jax")

    @jax.jit
    def attack(x, y, eps):
        def loss(z):
            return -jax.nn.log_softmax(net(z))[jax.numpy.arange(len(y)), y].sum()

        def step(_, z):
            return (x + (z + RATE * jax.numpy.sign(jax.grad(loss)(z)) - x).clip(-eps, eps)).clip(0, 1)

        return jax.lax.fori_loop(0, STEPS, step, x)

    return lambda x, y, eps: np.asarray(attack(x, y, eps))


def as_jax(w):
    jax = import_module("jax")
    params = [jax.numpy.asarray(v) for v in w]

    def conv(x, k):
        steps = (_stride(w), _stride(w))
        return jax.lax.conv_general_dilated(x, k, steps, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def pool(h):
        return jax.lax.reduce_window(h, -np.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    def net(p, x):
        h = x
        for k, b in (p[:2], p[2:4]):
            h = jax.nn.relu(conv(h, k) + b)
            h = h if _stride(w) == 2 else pool(h)
        h = h.reshape(len(x), -1)
        for k, b in zip(p[4:-2:2], p[5:-2:2], strict=True):
            h = jax.nn.relu(h @ k + b)
        return h @ p[-2] + p[-1]

    return from_jax(net, params, shape=SHAPE), jax_pgd(lambda z: net(params, z))


def as_nnx(w):
    nnx = import_module("flax.nnx")

    class Model(nnx.Module):
        def __init__(self, rngs):
            sizes = [(k.shape, b) for k, b in zip(w[::2], w[1::2], strict=True)]
            self.convs = nnx.List([nnx.Conv(*k[2:], k[:2], strides=_stride(w), rngs=rngs) for k, _ in sizes[:2]])
            self.dense = nnx.List([nnx.Linear(*k, rngs=rngs) for k, _ in sizes[2:]])

        def __call__(self, x):
            for conv in self.convs:
                x = nnx.relu(conv(x))
                x = x if _stride(w) == 2 else nnx.max_pool(x, (2, 2), (2, 2))
            x = x.reshape(len(x), -1)
            for dense in self.dense[:-1]:
                x = nnx.relu(dense(x))
            return self.dense[-1](x)

    model = Model(nnx.Rngs(0))
    for layer, k, b in zip((*model.convs, *model.dense), w[::2], w[1::2], strict=True):
        layer.kernel[...], layer.bias[...] = k, b
    return am.load_model(model, shape=SHAPE), jax_pgd(model)


def as_keras(w, backend):
    os.environ["KERAS_BACKEND"] = backend
    keras = import_module("keras")
    layers = keras.layers
    model = keras.Sequential([layers.Input(SHAPE)])
    for k in w[:4:2]:
        model.add(layers.Conv2D(k.shape[3], k.shape[:2], _stride(w), padding="same", activation="relu"))
        if _stride(w) == 1:
            model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    for k in w[4:-2:2]:
        model.add(layers.Dense(k.shape[1], activation="relu"))
    model.add(layers.Dense(10))
    model.set_weights(w)

    def torch_pgd(x, y, eps):
        net = lambda z: model(z, training=False)  # noqa: E731
        x, z = torch.from_numpy(x), torch.from_numpy(x)
        for _ in range(STEPS):
            z = z.detach().requires_grad_()
            (g,) = torch.autograd.grad(F.cross_entropy(net(z), torch.from_numpy(y), reduction="sum"), z)
            z = (x + (z.detach() + RATE * g.sign() - x).clamp(-eps, eps)).clamp(0, 1)
        return z.numpy()

    native = {"torch": torch_pgd, "tensorflow": None, "jax": None}[backend]
    if backend == "tensorflow":
        native = tf_pgd(lambda z: model(z, training=False))
    if backend == "jax":
        held = [v.value for v in model.trainable_variables]
        native = jax_pgd(lambda z: model.stateless_call(held, [], z, training=False)[0])
    return am.load_model(model), native


def as_onnx(w):
    net, _ = as_torch(w)
    path = Path(os.environ["BRIDGE_FOLDER"]) / "net.onnx"
    torch.onnx.export(net, (torch.rand(2, 1, 28, 28),), str(path), dynamo=False, opset_version=17,
                      input_names=["x"], dynamic_axes={"x": {0: "n"}})  # fmt: skip
    return am.load_model(path), as_torch(w)[1]


def built(name, w):
    makers = {"torch": as_torch, "tensorflow": as_tensorflow, "jax": as_jax, "nnx": as_nnx, "onnx": as_onnx}
    return as_keras(w, name.partition("-")[2]) if name.startswith("keras") else makers[name](w)


# ---------------------------------------------------------------------------------------------------------------------
# What one process finds out


def one(name: str, folder: Path, rows: int, rounds: int) -> dict[str, object]:
    """Robust accuracy, the gradient, and seconds through the bridge beside those of the native attack."""
    quiet(name)
    w, data = robust(os.environ["ADAMANT_MODELS_DIR"]), mnist(rows, Path(os.environ["ADAMANT_DATA_DIR"]))
    os.environ["BRIDGE_FOLDER"] = str(folder)
    net, _ = built(name, w)
    found: dict[str, object] = {}
    x = data.x[:BATCH].clone().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(net(x), data.y[:BATCH], reduction="sum"), x)
    np.save(folder / f"{name}.npy", g.numpy())
    started = time.process_time()
    for eps in (0.3, 0.1):
        for attack in (am.PGD(steps=STEPS), am.APGD()):
            out = am.attack(attack, net, data.x, data.y, am.Linf(eps))
            found[f"{type(attack).__name__} {eps}"] = round(out.robust_accuracy * rows)
    found["seconds"] = time.process_time() - started
    net, native = built(name, tutorial())
    few, labels = data.x[:BATCH], data.y[:BATCH]
    last = name in ("torch", "onnx")
    x = few if last else few.permute(0, 2, 3, 1).contiguous().numpy()
    y = labels if last else labels.numpy()
    pgd, goal, rng = am.PGD(steps=STEPS, rate=RATE / 0.3), Untargeted(labels), Rng.of(0, BATCH)

    def bridged():
        with untouched(net):
            perturb(pgd, net, few, goal, am.Linf(0.3), rng=rng)

    clocks = interleaved({"bridge": bridged, "native": lambda: native(x, y, 0.3)}, rounds)
    ratios = [a.cpu / b.cpu for a, b in zip(clocks["bridge"], clocks["native"], strict=True)]
    found["ratio"], found["range"] = statistics.median(ratios), (min(ratios), max(ratios))
    for key, values in clocks.items():
        found[key] = statistics.median(c.cpu for c in values)
    return found


def quiet(name: str) -> None:
    """One thread for everybody, so that CPU seconds are those of the work."""
    torch.set_num_threads(1)
    if "tensorflow" in name or name == "peers":
        threading = import_module("tensorflow").config.threading
        threading.set_intra_op_parallelism_threads(1)
        threading.set_inter_op_parallelism_threads(1)


def peers(rows: int) -> dict[str, object]:
    """The same TensorFlow model through adamant, Foolbox and ART: who leaves how many standing, in what time."""
    quiet("peers")
    w, data = robust(os.environ["ADAMANT_MODELS_DIR"]), mnist(rows, Path(os.environ["ADAMANT_DATA_DIR"]))
    ours, native = as_tensorflow(w)
    x, y, eps = data.x.permute(0, 2, 3, 1).contiguous().numpy(), data.y.numpy(), 0.3

    def standing(z):
        z = torch.from_numpy(np.asarray(z)).permute(0, 3, 1, 2)
        inside = ((z - data.x).abs().amax((1, 2, 3)) <= eps + 1e-6) & (z >= 0).all() & (z <= 1).all()
        with torch.no_grad():
            return int((ours(z).argmax(1) == data.y).logical_or(~inside & (ours(data.x).argmax(1) == data.y)).sum())

    def mine():
        return am.attack(am.PGD(steps=STEPS, rate=RATE / 0.3), ours, data.x, data.y, am.Linf(eps)).x_adv.permute(
            0, 2, 3, 1
        )

    def foolbox():
        fb = import_module("foolbox")
        model = fb.TensorFlowModel(ours.host.model, bounds=(0, 1))
        attack = fb.attacks.LinfPGD(abs_stepsize=RATE, steps=STEPS)
        tf = import_module("tensorflow")
        parts = [(tf.constant(x[i : i + BATCH]), tf.constant(y[i : i + BATCH])) for i in range(0, rows, BATCH)]
        return np.concatenate([attack(model, *part, epsilons=eps)[1].numpy() for part in parts])

    def art():
        tf = import_module("tensorflow")
        kind = import_module("art.estimators.classification").TensorFlowV2Classifier
        loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model = kind(lambda x, training=False: ours.host.model(x), 10, SHAPE, loss_object=loss, clip_values=(0, 1))
        pgd = import_module("art.attacks.evasion").ProjectedGradientDescent
        return pgd(model, eps=eps, eps_step=RATE, max_iter=STEPS, num_random_init=1, batch_size=BATCH,
                   verbose=False).generate(x, y)  # fmt: skip

    def alone():
        return np.concatenate([native(x[i : i + BATCH], y[i : i + BATCH], eps) for i in range(0, rows, BATCH)])

    found: dict[str, object] = {}
    for name, task in (("adamant", mine), ("native, from the input", alone), ("foolbox", foolbox), ("art", art)):
        try:
            started = time.process_time()
            z = task()
            found[name] = {"standing": standing(z), "seconds": time.process_time() - started}
        except Exception as error:
            found[name] = {
                "failed": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
            }
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[*FRAMEWORKS, "peers"])
    parser.add_argument("--work", type=Path, default=Path("bridge-work"), help="where gradients are kept")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    rows, rounds = (200, 2) if given.quick else (given.rows, given.rounds)
    given.work.mkdir(exist_ok=True)
    if given.one:
        work = peers(rows) if given.one == "peers" else one(given.one, given.work, rows, rounds)
        print("RESULT " + json.dumps(work))
        return
    heading(
        f"One network in every framework; {rows} MNIST test images, seed 0, Linf; PGD-{STEPS} of {BATCH} images timed"
    )
    want = None
    for name in given.only:
        needed = {"nnx": "flax", "peers": "tensorflow"}.get(name, name.removeprefix("keras-"))
        if find_spec(needed) is None:
            print(f"{name:18s} not installed")
            continue
        again = [
            sys.executable,
            __file__,
            "--one",
            name,
            "--rows",
            str(rows),
            "--rounds",
            str(rounds),
            "--work",
            str(given.work),
        ]
        folders = {"ADAMANT_MODELS_DIR": str(given.models_dir), "ADAMANT_DATA_DIR": str(given.data_dir)}
        done = subprocess.run(again, env=os.environ | QUIET | folders, capture_output=True, text=True, check=False)
        line = next((s for s in done.stdout.splitlines() if s.startswith("RESULT ")), None)
        if line is None:
            print(
                f"{name:18s} failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}"
            )
            continue
        found = json.loads(line.removeprefix("RESULT "))
        if name == "peers":
            for peer, row in found.items():
                said = row.get("failed") or f"{row['standing']} stand, {row['seconds']:.2f} CPU s"
                print(f"  on TensorFlow, {peer:24s} {said}")
            continue
        g = np.load(given.work / f"{name}.npy")
        want = g if want is None else want
        stand = ", ".join(f"{k}: {v}" for k, v in found.items() if k.startswith(("PGD", "APGD")))
        print(f"{name:18s} {stand}; gradient off by {np.abs(g - want).max() / np.abs(want).max():.1e} of the largest; "
              f"{found['seconds']:.1f} CPU s; PGD {found['bridge']:.3f} s, native {found['native']:.3f} s, "
              f"ratio {found['ratio']:.3f} [{found['range'][0]:.3f}..{found['range'][1]:.3f}]", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
