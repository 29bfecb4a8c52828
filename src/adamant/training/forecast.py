"""What a run will take, told before its first step: its passes, and about how long they take on this machine."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch

from adamant.calling import Caller, Settings, untouched
from adamant.runtime.checkpoint import Progress
from adamant.shards import Shard
from adamant.training.check import check
from adamant.training.parts import Refreshed, parts_of, threats_of
from adamant.training.step import Forge, Job

_TRIES = 3


@final
@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The size of a run, and about how long it will take while the machine is as busy as now."""

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
    """Time a step on a copy of the model, and a pass for the validations; the model itself is not touched.

    Raises InputError where the first step would. Among several processes, for compiled models and for recipes that see
    the whole set before an epoch, passes alone are timed.
    """
    check(job)
    plan, shard = job.plan, Shard.here()
    each = _pass(job, plan.batch_size // shard.world)
    steps = getattr(plan.selector(job.threat), "steps", 0)
    judged = plan.epochs * min(len(job.validation.y), plan.select_rows) * (2 * steps + 2)
    judged *= len(threats_of(job.recipe.inner, job.threat))
    learning = job.steps * plan.batch_size * job.recipe.cost
    whole = any(isinstance(part, Refreshed) for part in parts_of(job.recipe.inner))
    blind = whole or plan.compile or shard.world > 1
    seconds = learning * each / shard.world if blind else job.steps * _step(job)
    return Forecast(
        cost=job.recipe.cost, steps=job.steps, rows=plan.batch_size, forwards=learning + judged,
        seconds=seconds + judged * each / shard.world,
    )  # fmt: skip


def _pass(job: Job, rows: int) -> float:
    """Seconds of a forward of one row, from a forward and a backward of a batch."""
    x = job.data.x[:rows].to(next(job.model.parameters()).device)
    settings = Settings(lanes=1, autocast=job.plan.autocast, channels_last=job.plan.channels_last)
    model = Caller(job.model, settings)

    def once() -> None:
        z = x.detach().clone().requires_grad_()
        torch.autograd.grad(model(z).sum(), z)

    with untouched(job.model):
        return _clocked(once, x.device) / (2 * len(x))


def _step(job: Job) -> float:
    """Seconds of a step from the middle of the run."""
    trial = replace(job, model=copy.deepcopy(job.model), folder=None, readers=(), watch=None)
    forge = Forge.of(trial, Shard())
    progress = Progress(step=job.steps // 2)
    return _clocked(lambda: forge.step(progress), next(trial.model.parameters()).device, tries=1)


def _clocked(work: Callable[[], object], device: torch.device, tries: int = _TRIES) -> float:
    """The median of some tries; one more, before them, warms up."""
    taken: list[float] = []
    for _ in range(tries + 1):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])
