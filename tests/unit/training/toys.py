"""Small networks, rows and runs that the tests of the recipes share."""

import time
from dataclasses import replace

import torch
from torch import Tensor, nn

from adamant.attacks import FGSM, PGD
from adamant.data import load_data
from adamant.engine import run
from adamant.goals import Untargeted
from adamant.random import Rng
from adamant.runtime.optimizers import Adam
from adamant.threats import Linf
from adamant.training.fit import fit
from adamant.training.parts import Batch
from adamant.training.plan import Plan
from adamant.training.step import Job
from adamant.training.views import Views, sloped

N, D, K = 6, 5, 3
DIGITS = load_data("digits", split="train")
TRAIN, VALID = DIGITS.take(torch.arange(500)), DIGITS.take(torch.arange(500, 600))
TEST = load_data("digits", split="test")
PLAN = Plan(epochs=15, batch_size=50, select=FGSM(), select_rows=100, optimizer=Adam(1e-2))


def smooth(seed: int = 0, scale: float = 1.0) -> nn.Sequential:
    """A curved network without memory: its gradients and their gradients are none of them zero."""
    net = nn.Sequential(nn.Linear(D, 8), nn.Softplus(), nn.Linear(8, K))
    for i, p in enumerate(net.parameters()):
        p.data = Rng.of(seed, 1).fold(i).normal(*p.shape)[0] * scale
    return net.eval()


def rows(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs far from the edge of the box, and labels."""
    rng = Rng.of(seed, N)
    return 0.3 + 0.4 * rng.fold("x").uniform(D), rng.fold("y").integers(K)


def a_batch(seed: int = 0, **settings) -> Batch:
    x, y = rows(seed)
    return Batch(x, y, torch.arange(N), Rng.of(5, N), **settings)


def views(model: nn.Module, seed: int = 0, **more: Tensor) -> Views:
    """Two views of the rows, whose inputs can be differentiated."""
    x, y = rows(seed)
    z = (x + 0.1 * Rng.of(seed, N).fold("z").normal(D)).clamp(0, 1)
    inputs = {"clean": x, "adv": z, **more}
    return Views(sloped(inputs, inputs), y, model, threat=Linf(0.1), rng=Rng.of(7, N))


def digits_net(seed: int = 0, *, norm: bool = False, wide: int = 32) -> nn.Sequential:
    middle = [nn.BatchNorm1d(wide)] if norm else []
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, wide), *middle, nn.ReLU(), nn.Linear(wide, 10))
    for i, (name, p) in enumerate(net.named_parameters()):
        if p.ndim > 1:
            p.data = Rng.of(seed, 1).fold(i).normal(*p.shape)[0] * 0.15
        elif name.endswith("bias"):
            p.data.zero_()
    return net


EPS = Linf(0.1)


def train(recipe, *, plan: Plan = PLAN, threat=EPS, net: nn.Module | None = None, **settings) -> nn.Module:
    model = net or digits_net()
    made = {"data": TRAIN, "validation": VALID, "threat": threat, "recipe": recipe, "plan": plan, **settings}
    fit(Job(model=model, **made))
    return model


def judged(model: nn.Module, *threats, steps: int = 20, n: int = 300) -> tuple[float, ...]:
    """Clean accuracy, that under PGD within each threat model, and that under their union, on test rows."""
    x, y = TEST.x[:n], TEST.y[:n]
    outs = [run(PGD(steps=steps, rate=2.5 / steps), model, x, Untargeted(y), t) for t in threats]
    clean = float((model(x).argmax(1) == y).double().mean())
    union = torch.stack([o.status == 1 for o in outs]).all(0).double().mean()
    return (clean, *(o.robust_accuracy for o in outs), float(union))


def ends(recipe, folder, *, stop: int | None = None, resume: bool = False, seed: int = 0, **settings):
    """The weights and the record of a short run, which may be killed after some step."""
    model = digits_net(seed, norm=True, wide=8)

    def watch(step: int, steps: int, text: str) -> None:
        if step == stop and text.startswith("loss"):
            raise KeyboardInterrupt

    plan = replace(PLAN, epochs=3, batch_size=24, save_every=0.0)
    data = DIGITS.take(torch.arange(72))
    made = {"data": data, "validation": VALID, "threat": EPS, "recipe": recipe, "plan": plan, **settings}
    report = fit(Job(model=model, folder=folder, resume=resume, watch=watch, **made))
    bits = b"".join(v.numpy().tobytes() for v in model.state_dict().values())
    return bits, [{k: v for k, v in e.items() if k != "seconds"} for e in report.epochs], report.best_epoch


def timed(work) -> tuple[object, float]:
    began = time.process_time()
    return work(), time.process_time() - began
