"""What inner parts share that make points by hand: gradients, noise, and memory that all processes agree on."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from adamant._types import Inputs, Labels, Logits
from adamant.calling import Caller, unwrapped
from adamant.errors import InputError
from adamant.goals import Untargeted
from adamant.losses import CrossEntropy
from adamant.random import Rng
from adamant.threats import Normed, Projectable
from adamant.training.parts import Batch, Memory


def logits_of(model: nn.Module, z: Inputs, batch: Batch) -> Logits:
    """The model's answer, without a graph; one forward."""
    with torch.no_grad():
        return Caller(unwrapped(model), batch.settings)(z)


def slope(model: nn.Module, z: Inputs, label: Labels, batch: Batch) -> tuple[Logits, Inputs]:
    """The logits at z and the gradient of the log loss by z: a forward and a backward by the input."""
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        logits = Caller(unwrapped(model), batch.settings)(z)
        (g,) = torch.autograd.grad(CrossEntropy()(logits, Untargeted(label)).sum(), z)
    return logits.detach(), g


def unboxed(threat: Projectable) -> Projectable:
    """The same ball without its box: what a perturbation may be, whatever the input it is added to."""
    if not is_dataclass(threat) or "box" not in {f.name for f in fields(threat)}:
        return threat
    return cast(Projectable, replace(cast(Any, threat), box=(-math.inf, math.inf)))


def noise(threat: Projectable, x: Inputs, rng: Rng) -> Inputs:
    """A random point of the ball, then clipped to the box, as papers add noise; `sample` is uniform on both together.

    At the edge of the box, where background pixels are, half of the clipped noise is none at all.
    """
    return threat.clip(unboxed(threat).sample(x, rng))


def normed(threat: Projectable, who: object) -> Projectable:
    """The threat model, where its size is a norm; InputError for one that has no ball to step out of."""
    if not isinstance(threat, Normed):
        raise InputError(
            f"{type(who).__name__} measures its noise in balls, and {type(threat).__name__} has none: "
            "train within Linf, L2 or L1."
        )
    return threat


def remember(memory: Memory, name: str, places: Tensor, values: Tensor) -> None:
    """Write rows of a memory; what other processes write reaches this one after the step."""
    memory[name][places] = values.detach()
