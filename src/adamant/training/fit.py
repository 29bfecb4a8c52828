"""Training: the one step of the code base, and the loop around it that can be killed and resumed bit for bit."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from adamant._types import Inputs, Labels
from adamant.adversary import Status
from adamant.batch import PerRow
from adamant.calling import Settings, untouched
from adamant.engine import run
from adamant.errors import InputError, ModelError
from adamant.goals import Untargeted
from adamant.random import Rng, blend, permutation, sealed
from adamant.threats import Projectable
from adamant.training import checkpoint
from adamant.training.checkpoint import Progress
from adamant.training.inner import Batch
from adamant.training.outer import Views
from adamant.training.plan import Plan
from adamant.training.recipes import Recipe


class Labelled(Protocol):
    """Rows of inputs with their labels."""

    @property
    def x(self) -> Tensor: ...

    @property
    def y(self) -> Tensor: ...


@final
@dataclass(frozen=True)
class Report:
    """What a finished training run says of itself; `model` holds the best weights already."""

    epochs: tuple[dict[str, Any], ...]
    best_epoch: int
    seconds: float
    steps: int


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
    seed: int = 0
    folder: Path | None = None  # where the checkpoint goes; nowhere without
    resume: bool = False
    watch: Callable[[int, int, str], None] | None = field(default=None, compare=False, repr=False)  # step, steps, words

    @property
    def per_epoch(self) -> int:
        """Steps in an epoch; the rows that do not fill a batch wait for another epoch's order."""
        return len(self.data.y) // self.plan.batch_size

    @property
    def steps(self) -> int:
        """Steps in the whole run."""
        return self.per_epoch * self.plan.epochs

    @property
    def identity(self) -> str:
        """What must be the same for a checkpoint to be continued."""
        digest = hashlib.sha256()
        for part in (self.data.x, self.data.y, self.validation.x, self.validation.y):
            digest.update(part.detach().cpu().contiguous().numpy().data)
        rows = f"{len(self.data.y)} rows, sha256 {digest.hexdigest()[:16]}"
        return f"{self.recipe!r} | {self.plan!r} | {self.threat!r} | seed {self.seed} | {rows}"


def fit(job: Job) -> Report:
    """Train the model in place; it ends in eval mode with the weights of the best checkpoint.

    Raises InputError for a plan that does not fit the data, ModelError when the loss is no longer a number, and
    RunError when a checkpoint of another run is resumed. Ctrl-C leaves the last checkpoint for `resume`.
    """
    job.plan.check(len(job.data.y))
    if any(isinstance(getattr(job.threat, name, None), PerRow) for name in ("eps", "mask")):
        raise InputError("Training draws its batches from all rows: give it one budget and one mask, not one per row.")
    job.threat.check(job.data.x)
    model, optimizer = job.model, job.plan.optimizer.build(job.model, job.plan.l2)
    path = job.folder / "checkpoint.safetensors" if job.folder else None
    identity = job.identity if path else ""
    if job.resume and path and path.exists():
        progress = checkpoint.load(path, model, optimizer, identity)
    else:
        progress = Progress(mean=_copy(model) if job.recipe.average else {})
    began = saved = time.monotonic() - progress.seconds
    with _dropout(model, job.plan.dropout):
        while progress.step < job.steps and not _patience_is_over(job, progress):
            if progress.step % job.per_epoch == 0:
                _refresh(job, progress)
            loss = _step(job, optimizer, progress)
            progress.step, progress.seconds = progress.step + 1, time.monotonic() - began
            if job.watch:
                job.watch(progress.step, job.steps, f"loss {loss:.3f}")
            over = progress.step % job.per_epoch == 0
            if over:
                _close_epoch(job, progress, loss, optimizer.param_groups[0]["lr"])
            if path and (over or time.monotonic() - saved > job.plan.save_every):
                checkpoint.save(path, model, optimizer, progress, identity)
                saved = time.monotonic()
    model.load_state_dict(progress.best)
    model.eval()
    return Report(tuple(progress.epochs), progress.best_epoch, progress.seconds, progress.step)


def _step(job: Job, optimizer: torch.optim.Optimizer, progress: Progress) -> float:
    """The one training step: make the views, minimise the expression over them, average."""
    step, recipe, model = progress.step, job.recipe, job.model
    done = step / job.steps
    rows = _rows(job, step)
    x, y = _placed(job, rows)
    rng = Rng.of(job.seed, rows).to(x.device).fold("step").fold(step)
    threat = _scaled(job.threat, recipe.eps(done))
    with untouched(
        model, seed=blend(job.seed, step)
    ):  # the attack sees the model in eval mode, with its weights frozen
        views = recipe.inner(model, Batch(x, y, rows.to(x.device), rng), threat, progress.memory)
    for group in optimizer.param_groups:
        group["lr"] = job.plan.optimizer.rate * job.plan.shape(done)
    model.train()
    with sealed(blend(job.seed, step)):
        loss = recipe.outer(Views({"clean": x, **views}, y, model)).mean()
        if job.plan.l1:
            loss = loss + job.plan.l1 * sum(p.abs().sum() for p in model.parameters() if p.ndim > 1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
    value = loss.item()
    if value != value:
        raise ModelError(
            f"The loss is no longer a number at step {step} of {job.steps}: lower the learning rate "
            f"(now {job.plan.optimizer.rate:g}). The last checkpoint is kept."
        )
    optimizer.step()
    if recipe.average:
        recipe.average.update(progress.mean, model, step)
    return value


def _rows(job: Job, step: int) -> Tensor:
    """The training rows of a step: a slice of the epoch's order, which is a function of seed and epoch."""
    epoch, place = divmod(step, job.per_epoch)
    order = permutation(len(job.data.y), job.seed, f"epoch {epoch}")
    return order[place * job.plan.batch_size : (place + 1) * job.plan.batch_size]


def _placed(job: Job, rows: Tensor) -> tuple[Inputs, Labels]:
    device = next(job.model.parameters()).device
    return job.data.x[rows].to(device), job.data.y[rows].to(device)


def _scaled(threat: Projectable, by: float) -> Projectable:
    eps = float(getattr(threat, "eps", 1.0))
    return threat if by == 1 else threat.at(max(eps * by, 1e-12 * eps))


def _refresh(job: Job, progress: Progress) -> None:
    everything = torch.arange(len(job.data.y))
    x, y = _placed(job, everything)
    rng = Rng.of(job.seed, everything).to(x.device).fold("refresh").fold(progress.step)
    threat = _scaled(job.threat, job.recipe.eps(progress.step / job.steps))
    with untouched(job.model, seed=blend(job.seed, progress.step)):
        job.recipe.inner.refresh(job.model, x, y, threat, rng, progress.memory)


def _close_epoch(job: Job, progress: Progress, loss: float, rate: float) -> None:
    """Validate the weights that would be saved, write the epoch down, and keep them if they are the best yet."""
    live = _copy(job.model)
    candidate = progress.mean if job.recipe.average else live
    job.model.load_state_dict(candidate)
    clean, robust = validate(job)
    job.model.load_state_dict(live)
    epoch = progress.step // job.per_epoch
    entry: dict[str, Any] = {
        "epoch": epoch,
        "step": progress.step,
        "loss": loss,
        "rate": rate,
        "clean": clean,
        "robust": robust,
    }
    progress.epochs.append({**entry, "seconds": progress.seconds})
    before = progress.epochs[progress.best_epoch - 1] if progress.best_epoch else {"robust": -1.0, "clean": -1.0}
    # Ordinary training is chosen by what it is for, or an untrained epoch could win by a row that happened to stand.
    first, second = ("robust", "clean") if job.recipe.inner.cost else ("clean", "robust")
    if (entry[first], entry[second]) > (before[first], before[second]):
        progress.best_epoch, progress.best = epoch, {k: v.clone() for k, v in candidate.items()}
    if job.watch:
        job.watch(progress.step, job.steps, f"epoch {epoch}: clean {clean:.1%}, robust {robust:.1%} on validation rows")


def validate(job: Job) -> tuple[float, float]:
    """Clean and robust accuracy on the first rows of the validation set, under the plan's own attack."""
    x, y = job.validation.x[: job.plan.select_rows], job.validation.y[: job.plan.select_rows]
    rng = Rng.of(job.seed, len(x)).fold("validation")
    out = run(job.plan.select, job.model, x, Untargeted(y), job.threat, rng=rng, settings=Settings())
    wrong = float((out.status == Status.WRONG_ALREADY).double().mean())
    return 1 - wrong, out.robust_accuracy


def _patience_is_over(job: Job, progress: Progress) -> bool:
    patience = job.plan.patience
    return patience is not None and len(progress.epochs) - progress.best_epoch >= patience > 0 and bool(progress.epochs)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


@contextmanager
def _dropout(model: nn.Module, share: float) -> Generator[None]:
    """Dropout before the last linear layer while the model trains, without a change to the network."""
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    if share and not linear:
        raise InputError("Dropout goes before the last linear layer, and the model has none: set dropout to 0.")

    def drop(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (nn.functional.dropout(args[0], share, training=module.training), *args[1:])

    handle = linear[-1].register_forward_pre_hook(drop) if share else None
    try:
        yield
    finally:
        if handle:
            handle.remove()
