"""The one training step: make the views, take the gradient of the expression over them, follow it, average."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adamant._types import Inputs, Labels
from adamant.calling import Caller, Settings, untouched
from adamant.errors import InputError
from adamant.random import Rng, blend, permutation, sealed
from adamant.runtime import average, together
from adamant.runtime.augment import Mixing
from adamant.runtime.checkpoint import Progress, copied
from adamant.runtime.log import Reader
from adamant.runtime.loop import Watch
from adamant.shards import Shard
from adamant.threats import Projectable
from adamant.training import weights
from adamant.training.parts import Batch, Inner, Learner, grown, parts_of, scaled
from adamant.training.plan import Plan
from adamant.training.recipes import Recipe
from adamant.training.still import still
from adamant.training.views import Views, sloped, slopes_of, views_of


class Labelled(Protocol):
    """Rows of inputs with their labels."""

    @property
    def x(self) -> Tensor: ...

    @property
    def y(self) -> Tensor: ...


@final
@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run: everything that decides its weights, and where and how it is watched."""

    model: nn.Module
    data: Labelled
    validation: Labelled
    threat: Projectable
    recipe: Recipe
    plan: Plan = Plan()
    extra: Labelled | None = None  # further rows, such as synthetic ones: `plan.extra` of each batch
    seed: int = 0
    folder: Path | None = None  # where the checkpoint goes; nowhere without
    resume: bool = False
    watch: Watch | None = field(default=None, compare=False, repr=False)
    readers: tuple[Reader, ...] = field(default=(), compare=False, repr=False)  # of the log, as it is written

    @property
    def per_epoch(self) -> int:
        """Steps in an epoch; the rows that do not fill a batch wait for another epoch's order."""
        return len(self.data.y) // self.plan.own_rows * self.recipe.replay

    @property
    def steps(self) -> int:
        """Steps in the whole run."""
        return self.per_epoch * self.plan.epochs


class Objective(nn.Module):
    """The whole loss of a step as one forward, so that wrappers for several processes see one forward, one backward."""

    def __init__(self, model: nn.Module, job: Job, shard: Shard) -> None:
        super().__init__()
        self.model, self.outer, self.l1, self.shard = model, job.recipe.outer, job.plan.l1, shard
        self.joint = views_of(job.recipe.outer) if job.recipe.joint else ()
        self.low, self.last = job.plan.autocast, job.plan.channels_last

    def forward(
        self,
        inputs: Mapping[str, Inputs],
        label: Labels,
        soft: Tensor | None,
        threat: Projectable,
        rng: Rng,
        done: float,
    ) -> Tensor:
        """The mean over the rows, with the penalty on the weights."""
        views = Views(
            inputs, label, self._ask, threat=threat, rng=rng, done=done, soft=soft, joint=self.joint,
            shard=self.shard,
        )  # fmt: skip
        loss = self.outer(views).mean()
        if self.l1:
            loss = loss + self.l1 * sum(p.abs().sum() for p in self.model.parameters() if p.ndim > 1)
        return loss

    def _ask(self, z: Inputs) -> Tensor:
        if self.last and z.ndim == 4:
            z = z.contiguous(memory_format=torch.channels_last)
        quick: AbstractContextManager[Any] = (
            torch.autocast(z.device.type, torch.bfloat16) if self.low else nullcontext()
        )
        with quick:
            return self.model(z)


@dataclass
class Forge:
    """What a run works with: the job, the model as it is asked (compiled, shared among processes), the optimiser."""

    job: Job
    objective: nn.Module
    asked: nn.Module  # by the attack: the model itself, never the wrapper of several processes
    optimizer: torch.optim.Optimizer
    shard: Shard
    classes: int

    @staticmethod
    def of(job: Job, shard: Shard) -> Forge:
        """For a job that was checked; raises InputError where the model cannot be compiled."""
        plan, model = job.plan, job.model
        classes = classes_of(job)
        if plan.channels_last:
            model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        optimizer = plan.optimizer.build(model, plan.l2)
        asked = _compiled(job, plan.batch_size // shard.world) if plan.compile else model
        objective: nn.Module = Objective(asked, job, shard)
        if shard.world > 1:
            shard.join()
            objective = nn.parallel.DistributedDataParallel(objective)
        return Forge(job, objective, asked, optimizer, shard, classes)

    def step(self, progress: Progress) -> float:
        """One step of the run; the loss is returned, and where it is no number nothing has changed."""
        job, model, step = self.job, self.job.model, progress.step
        recipe, plan, done = job.recipe, job.plan, step / job.steps
        if recipe.average and not progress.mean:
            progress.mean = copied(model.state_dict())
        inner = strengthened(recipe.inner, progress.strength)
        batch, soft = self.draw(step)
        threat, remembered = scaled(job.threat, batch.scale), together.versions(progress.memory)
        with untouched(self.asked, seed=self._seed(step), training=recipe.attack_in_training_mode):
            views = {"clean": batch.x, **inner(self.asked, batch, threat, progress.memory)}
        for group in self.optimizer.param_groups:
            group["lr"] = plan.optimizer.rate * plan.shape(done) * progress.rate
        learners = [part for part in parts_of(inner) if isinstance(part, Learner)]
        views = sloped(views, (*slopes_of(recipe.outer), *(part.learns for part in learners)))
        loss = self._gradient(views, batch, soft, threat, step)
        if not (math.isfinite(loss) and together.finite(p.grad for p in model.parameters() if p.grad is not None)):
            return math.nan
        if plan.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
        self.optimizer.step()
        for part in learners:
            gradient = views[part.learns].grad
            assert gradient is not None
            part.learn(batch, gradient / self.shard.world, threat, progress.memory)
        together.level(model, self.shard)
        self._exchange(step)(progress.memory, remembered)
        if recipe.average:
            average.update(recipe.average, progress.mean, model, step, job.steps)
        return loss

    def _gradient(
        self, views: dict[str, Inputs], batch: Batch, soft: Tensor | None, threat: Projectable, step: int
    ) -> float:
        """Leave the gradient in the weights, taken where the recipe moves them to; returns the loss of everybody."""
        job, model, done = self.job, self.job.model, step / self.job.steps
        model.train()
        quiet = still(model, job.plan, done)
        for module in quiet:
            module.training = False

        def backward() -> float:
            with sealed(self._seed(step)):
                self.optimizer.zero_grad(set_to_none=True)
                loss = self.objective(views, batch.y, soft, threat, batch.rng, done)
                loss.backward()
            if done < job.plan.probe:
                for module in quiet:
                    for p in module.parameters(recurse=False):
                        p.grad = None
            return float(loss.detach())

        def gradients() -> dict[str, Tensor]:
            kept = [(b, b.detach().clone()) for b in model.buffers()]
            backward()
            with torch.no_grad():
                for b, value in kept:
                    b.copy_(value)
            return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

        offset = job.recipe.weights.offset(model, gradients, done) if job.recipe.weights else {}
        for v in views.values():
            v.grad = None
        with weights.moved(model, offset):
            return together.mean(backward(), self.shard)

    def draw(self, step: int) -> tuple[Batch, Tensor | None]:
        """This process's rows of a step, augmented, with their labels as probabilities where they were mixed."""
        job, plan, done = self.job, self.job.plan, step / self.job.steps
        rows, mine = rows_of(job, step), slice(self.shard.rank, None, self.shard.world)
        mixes = any(isinstance(change, Mixing) for change in plan.augment)  # across the batch, so on all of it
        rows = rows if mixes else rows[mine]
        x, y = placed(job, rows)
        settings = Settings(lanes=1, autocast=plan.autocast, channels_last=plan.channels_last)
        rng = Rng.of(job.seed, rows).to(x.device).fold("step").fold(step)
        # Replays of a batch see the same pictures.
        fresh = Rng.of(job.seed, rows).to(x.device).fold("step").fold(step // job.recipe.replay).fold("augment")
        soft: Tensor | None = None
        for i, change in enumerate(plan.augment):
            if isinstance(change, Mixing):
                soft = F.one_hot(y, self.classes).to(x.dtype) if soft is None else soft
                x, soft = change.mix(x, soft, fresh.fold(i))
            else:
                x = change(x, fresh.fold(i))
        if soft is not None:
            x, soft, rows, rng = x[mine], soft[mine], rows[mine], Rng(rng.key[mine])
            y = soft.argmax(1)
        common = Rng.of(job.seed, 1).fold("common").fold(step)
        scale = job.recipe.eps(done)
        batch = Batch(
            x, y, rows.to(x.device), rng, done=done, scale=scale, settings=settings, common=common, shard=self.shard
        )
        return batch, soft

    def _seed(self, step: int) -> int:
        """Of torch's own generators, in this step and process."""
        seed = blend(self.job.seed, step)
        return blend(seed, self.shard.rank) if self.shard.rank else seed

    def _exchange(self, step: int) -> together.Exchange:
        return together.Exchange(rows_of(self.job, step), rows_in(self.job), self.shard)


def classes_of(job: Job) -> int:
    """How many the model knows."""
    x = job.data.x[:2].to(next(job.model.parameters()).device)
    with untouched(job.model), torch.no_grad():
        return Caller(job.model, Settings(lanes=1))(x).shape[1]


def _compiled(job: Job, rows: int) -> nn.Module:
    """The model as one graph, tried as an attack asks it; raises InputError where there is no compiler, or no graph."""
    z = job.data.x[:rows].to(next(job.model.parameters()).device).detach().clone().requires_grad_()
    try:
        asked = cast(nn.Module, torch.compile(job.model))
        with untouched(job.model):
            torch.autograd.grad(asked(z).sum(), z)
    except Exception as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"The model cannot be compiled here ({why[:200]}): train without compile.") from error
    return asked


def strengthened(inner: Inner, times: int) -> Inner:
    """The inner part, made stronger so many times."""
    for _ in range(times):
        inner = grown(inner)
    return inner


def rows_of(job: Job, step: int) -> Tensor:
    """The rows of a step: a slice of the epoch's order, which is a function of seed and epoch; extra rows count on."""
    epoch, place = divmod(step, job.per_epoch)
    size, place = job.plan.own_rows, place // job.recipe.replay
    order = permutation(len(job.data.y), job.seed, f"epoch {epoch}")
    rows = order[place * size : (place + 1) * size]
    more = job.plan.batch_size - size
    if not more or job.extra is None:
        return rows
    drawn = Rng.of(job.seed, more).fold("extra").fold(step // job.recipe.replay).integers(len(job.extra.y))
    return torch.cat([rows, len(job.data.y) + drawn])


def rows_in(job: Job) -> int:
    """Rows to learn from, with the extra ones."""
    return len(job.data.y) + (len(job.extra.y) if job.extra else 0)


def placed(job: Job, rows: Tensor) -> tuple[Inputs, Labels]:
    """Inputs and labels of these rows, where the model is."""
    device = next(job.model.parameters()).device
    n = len(job.data.y)
    if job.extra is None or bool((rows < n).all()):
        return job.data.x[rows].to(device), job.data.y[rows].to(device)
    own, more = rows[rows < n], rows[rows >= n] - n
    x, y = torch.cat([job.data.x[own], job.extra.x[more]]), torch.cat([job.data.y[own], job.extra.y[more]])
    return x.to(device), y.to(device)
