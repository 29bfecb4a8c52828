"""What a run will take, told before its first step: the passes it asks for, times how long a pass takes here."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import final

import torch

from adamant.calling import Caller, Settings, untouched
from adamant.shards import Shard
from adamant.training.inner import threats_of
from adamant.training.step import Job

_TRIES = 3


@final
@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The size of a run, and how long it will take about: the passes alone, on a machine that does nothing else."""

    cost: int  # forwards per row and step
    steps: int
    rows: int  # per step
    forwards: int  # of the whole run with its validations, in forwards of one row
    seconds: float

    def __str__(self) -> str:
        long = f"{self.seconds / 60:.0f} minutes" if self.seconds >= 90 else f"{self.seconds:.2g} seconds"
        return (
            f"{self.steps:,} steps of {self.rows} rows, {self.cost} forwards per row and step, "
            f"{self.forwards:,} with the validations: about {long}."
        )


def forecast(job: Job) -> Forecast:
    """Time a forward and a backward of one batch on the model as it is, and count the rest; nothing changes."""
    plan, world = job.plan, Shard.here().world
    x = job.data.x[: plan.batch_size // world].to(next(job.model.parameters()).device)
    model = Caller(job.model, Settings(lanes=1, autocast=plan.autocast, channels_last=plan.channels_last))
    taken: list[float] = []
    with untouched(job.model):
        for _ in range(_TRIES + 1):
            began = time.perf_counter()
            z = x.detach().clone().requires_grad_()
            torch.autograd.grad(model(z).sum(), z)
            if z.is_cuda:
                torch.cuda.synchronize(z.device)
            taken.append(time.perf_counter() - began)
    each = statistics.median(taken[1:]) / (2 * len(x))  # the first warms up
    steps = getattr(plan.selector(job.threat), "steps", 0)
    judged = (
        min(len(job.validation.y), plan.select_rows) * (2 * steps + 2) * len(threats_of(job.recipe.inner, job.threat))
    )
    forwards = job.steps * plan.batch_size * job.recipe.cost + plan.epochs * judged
    return Forecast(
        cost=job.recipe.cost, steps=job.steps, rows=plan.batch_size, forwards=forwards, seconds=forwards * each / world
    )
