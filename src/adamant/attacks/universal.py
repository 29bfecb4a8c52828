"""One change for a whole data set: universal perturbations."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from adamant._types import Inputs, Logits
from adamant.access import Look, Sight, View, WhiteBox
from adamant.batch import PerRow, Rows, Shared, on, take
from adamant.calling import Caller, Settings, device_of, untouched, unwrapped
from adamant.desk import Problem
from adamant.errors import InputError
from adamant.goals import Goal
from adamant.losses import CrossEntropy, Loss, Margin
from adamant.random import Rng, permutation
from adamant.threats import L2, Linf


@final
@dataclass(frozen=True)
class SameChange:
    """Looks at x + change and nowhere else: how a universal perturbation is judged on other inputs."""

    change: Shared  # (*d)
    steps: int = 0
    loss: Loss = Margin()
    needs: ClassVar[Sight] = Sight.LABELS

    @dataclass(frozen=True)
    class State(Rows):
        """Where it looks."""

        z: Tensor

    def init(self, p: Problem) -> State:
        change = self.change.values.to(p.x)
        if change.shape != p.x.shape[1:]:
            raise InputError(f"The change has shape {tuple(change.shape)}, the inputs {tuple(p.x.shape[1:])}.")
        return self.State(p.project(p.x + change))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        return s


def universal(
    model: nn.Module,
    x: Inputs,
    goal: Goal,
    threat: Linf | L2,
    *,
    epochs: int = 50,
    rate: float = 0.1,
    batch_size: int = 128,
    loss: Loss = CrossEntropy(),
    most: float = 9.0,
    seed: int = 0,
) -> SameChange:
    """One change within the threat that fools the model on as many rows of x (n, *d) as it can.

    Steepest ascent on the mean loss over batches (Shafahi et al., 2020, arXiv:1811.11304), each row's loss cut off at
    `most`, so that rows that fell long ago do not draw the change. Judge the attack that comes back on other inputs.
    """
    threat.check(x)
    if isinstance(threat.eps, PerRow) or not math.isfinite(threat.eps):
        raise InputError(f"One change for all rows needs one finite budget, got {threat.eps}.")
    raw, device = unwrapped(model), device_of(model, x)
    free = replace(threat, box=(-torch.inf, torch.inf))
    change, none = x.new_zeros(1, *x.shape[1:]).to(device), x.new_zeros(1, *x.shape[1:]).to(device)
    with untouched(raw, seed=seed):
        caller, no_rng = Caller(raw, Settings()), partial(Rng.of, seed, 0)  # a white box draws nothing
        for epoch in range(epochs):
            for rows in permutation(len(x), seed, epoch).split(batch_size):
                part, their = on(x[rows], device), on(take(goal, rows), device)
                view = View(caller, partial(_cut, loss, their, most), threat.clip, threat.free, no_rng)
                seen = WhiteBox().look(view, threat.clip(part + change), grad=True)
                step = free.move(change, seen.slope.mean(0, keepdim=True), rate * (1 - epoch / epochs))
                change = free.project(step, none)
    return SameChange(Shared(change[0].cpu()))


def _cut(loss: Loss, goal: Goal, most: float, logits: Logits) -> Tensor:
    return loss(logits, goal).clamp(max=most)
