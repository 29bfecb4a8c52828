"""Training: the loop around the one step, which can be killed and resumed bit for bit, and goes back where it fails."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, distributed, nn

from adamant.access import Sight, sight
from adamant.adversary import Status
from adamant.batch import PerRow
from adamant.calling import untouched
from adamant.engine import run
from adamant.errors import InputError, ModelError
from adamant.goals import Untargeted
from adamant.random import Rng, blend, permutation
from adamant.shards import Shard
from adamant.training import checkpoint, together
from adamant.training.checkpoint import Progress
from adamant.training.guards import Guard
from adamant.training.inner import Refreshed, parts_of, scaled, threats_of
from adamant.training.log import Log
from adamant.training.outer import Sure, leaves
from adamant.training.step import Forge, Job, placed, strengthened
from adamant.training.still import dropout, frozen
from adamant.training.stopping import asked_to_stop
from adamant.training.teacher import teachers_of
from adamant.values import brief

_RETURNS = 5  # how often a run may go back for want of a loss that is a number


@final
@dataclass(frozen=True)
class Report:
    """What a finished training run says of itself; `model` holds the best weights already."""

    epochs: tuple[dict[str, Any], ...]
    best_epoch: int
    seconds: float
    steps: int
    events: tuple[dict[str, Any], ...] = ()  # where the run went back: at which step, why, to where, to what


def identity(job: Job) -> str:
    """What must be the same for a checkpoint to be continued."""
    digest = hashlib.sha256()
    sets = (job.data, job.validation, *((job.extra,) if job.extra else ()))
    for part in (tensor for rows in sets for tensor in (rows.x, rows.y)):
        digest.update(part.detach().cpu().contiguous().numpy().data)
    rows = f"{len(job.data.y)} rows, sha256 {digest.hexdigest()[:16]}"
    taught = "".join(f" | teacher sha256 {t.digest[:16]}" for t in teachers_of(job.recipe.inner, job.recipe.outer))
    return f"{job.recipe!r} | {job.plan!r} | {job.threat!r} | seed {job.seed} | {rows}{taught}"


def fit(job: Job) -> Report:
    """Train the model in place; it ends in eval mode with the weights of the best checkpoint.

    Raises InputError for a plan that does not fit the data, ModelError when the loss is no longer a number, however
    often the run goes back, and RunError when a checkpoint of another run is resumed. Ctrl-C and SIGTERM end the step,
    write a checkpoint for `resume`, and raise KeyboardInterrupt.
    """
    check(job)
    shard = Shard.here()
    with frozen(job.model, job.plan), dropout(job.model, job.plan.dropout), asked_to_stop(shard) as asked:
        progress = _Run(job, Forge.of(job, shard), asked).whole()
    if job.plan.channels_last:
        job.model.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    job.model.load_state_dict(progress.best)
    job.model.eval()
    return Report(tuple(progress.epochs), progress.best_epoch, progress.seconds, progress.step, tuple(progress.events))


def check(job: Job) -> None:
    """Raise ModelError for a model without gradients, InputError where plan, recipe, threat and rows do not fit."""
    if (shown := sight(job.model)) < Sight.GRADIENT:
        raise ModelError(
            f"This model shows {shown.name.lower()} only and its weights get no gradient: it can be attacked and "
            "audited, and not trained here. Train it where it was made, or train a network of the zoo on the same data."
        )
    job.plan.check(len(job.data.y))
    if any(isinstance(getattr(job.threat, name, None), PerRow) for name in ("eps", "mask")):
        raise InputError("Training draws its batches from all rows: give it one budget and one mask, not one per row.")
    if job.extra is not None and not job.plan.extra:
        raise InputError("There are extra rows, and the plan takes none of them: set extra to their share of a batch.")
    if not len(job.validation.y):
        raise InputError("There are no validation rows to choose the best epoch by: give some.")
    for rows in (job.data, job.validation, *((job.extra,) if job.extra is not None else ())):
        if len(rows.x) != len(rows.y) or rows.x.shape[1:] != job.data.x.shape[1:]:
            raise InputError(
                f"Rows to train, validate and add must be alike and labelled: got {tuple(rows.x.shape)} with "
                f"{len(rows.y)} labels beside {tuple(job.data.x.shape)}."
            )
        for threat in threats_of(job.recipe.inner, job.threat):
            threat.check(rows.x)
    for teacher in teachers_of(job.recipe.inner, job.recipe.outer):
        teacher(job.data.x[:1])
    with frozen(job.model, job.plan), dropout(job.model, job.plan.dropout):
        pass


@dataclass
class _Run:
    """The loop, and what it does between steps."""

    job: Job
    forge: Forge
    asked: Callable[[], bool]
    log: Log = field(init=False)

    def whole(self) -> Progress:
        """From the first step, or from the checkpoint, to the last."""
        job, recipe = self.job, self.job.recipe
        path = job.folder / "checkpoint.safetensors" if job.folder else None
        name = identity(job) if path else ""
        goes_on = bool(job.resume and path and path.exists())
        if goes_on and path:
            progress = checkpoint.load(path, job.model, self.forge.optimizer, name)
        else:
            progress = Progress(mean=_copy(job.model) if recipe.average else {})
            progress.good = self._packed(progress)
        self._open_log(progress, goes_on)
        saved = time.monotonic()
        began = saved - progress.seconds
        while progress.step < job.steps and not _patience_is_over(job, progress):
            if progress.step % job.per_epoch == 0:
                self._refresh(progress)
            loss = self.forge.step(progress)
            progress.seconds = time.monotonic() - began
            over = (progress.step + 1) % job.per_epoch == 0
            guarded = recipe.guard is not None and (progress.step + 1) % self._between(recipe.guard) == 0
            if not math.isfinite(loss) or ((over or guarded) and not together.finite(job.model.state_dict().values())):
                self._no_number(progress)
                continue
            progress.step += 1
            if job.watch:
                job.watch(progress.step, job.steps, f"loss {loss:.3f}")
            if over:
                self._close_epoch(progress, loss)
            if recipe.guard is not None:
                self._probe(progress, recipe.guard)
            elif over:
                progress.good = self._packed(progress)
            late = time.monotonic() - saved > job.plan.save_every
            stop, late = together.any_of([self.asked(), late], self.forge.shard)
            if path and (over or stop or late):
                self._save(path, progress, name)
                saved = time.monotonic()
            if stop:
                self._stop(progress)
        self.log("end", progress.step, progress.seconds, {"best_epoch": progress.best_epoch})
        return progress

    def _open_log(self, progress: Progress, goes_on: bool) -> None:
        job, first = self.job, self.forge.shard.first
        path = job.folder / "log.jsonl" if job.folder and first else None
        self.log = Log(path, job.readers if first else (), until=progress.seconds if goes_on else None)
        facts = {"steps": job.steps, "rows": len(job.data.y), "recipe": brief(job.recipe), "plan": brief(job.plan)}
        told = {"threat": brief(job.threat), "seed": job.seed, "processes": self.forge.shard.world}
        self.log("resumed" if goes_on else "start", progress.step, progress.seconds, {**facts, **told})

    def _stop(self, progress: Progress) -> None:
        self.log("stopped", progress.step, progress.seconds)
        self.forge.shard.meet()  # the first that leaves would take the others with it, in the middle of a file
        raise KeyboardInterrupt

    def _save(self, path: Path, progress: Progress, name: str) -> None:
        if self.forge.shard.first:
            checkpoint.save(path, self.job.model, self.forge.optimizer, progress, name)

    def _packed(self, progress: Progress) -> checkpoint.State:
        return checkpoint.pack(self.job.model, self.forge.optimizer, progress)

    def _refresh(self, progress: Progress) -> None:
        job = self.job
        parts = [part for part in parts_of(job.recipe.inner) if isinstance(part, Refreshed)]
        if not parts:
            return
        everything = torch.arange(len(job.data.y) + (len(job.extra.y) if job.extra else 0))
        x, y = placed(job, everything)
        rng = Rng.of(job.seed, everything).to(x.device).fold("refresh").fold(progress.step)
        threat = scaled(job.threat, job.recipe.eps(progress.step / job.steps))
        with untouched(job.model, seed=blend(job.seed, progress.step)):
            for part in parts:
                part.refresh(job.model, x, y, threat, rng, progress.memory)

    # --- going back -----------------------------------------------------------------------------------------------

    def _no_number(self, progress: Progress) -> None:
        """Back to where the run was well, with half the learning rate; after some such returns, an error."""
        job = self.job
        before = sum(e["why"].startswith("the loss") for e in progress.events)
        if before == _RETURNS:
            raise ModelError(
                f"The loss is no longer a number at step {progress.step} of {job.steps}, for the {_RETURNS + 1}th "
                f"time: lower the learning rate (now {job.plan.optimizer.rate * progress.rate:g}). "
                "The last checkpoint is kept."
            )
        self._go_back(progress, "the loss or its slope was no number, so the learning rate is halved")
        progress.rate /= 2

    def _between(self, guard: Guard) -> int:
        """Steps between two looks of the guard."""
        return guard.interval(self.job.recipe.cost * self.job.plan.batch_size)

    def _probe(self, progress: Progress, guard: Guard) -> None:
        """The guard looks: where all is well this is a good place, where it is not the run is back at the last one."""
        job, recipe, between = self.job, self.job.recipe, self._between(guard)
        if progress.step % between:
            return
        rows = permutation(len(job.data.y), job.seed, "guard")[: guard.rows]
        x, y = placed(job, rows)
        scale, before = (recipe.eps(max(0, s) / job.steps) for s in (progress.step, progress.step - between))
        seen = guard.probe(job.model, x, y, scaled(job.threat, scale), Rng.of(job.seed, rows).fold("guard"))
        many, one = together.from_first(seen, self.forge.shard)
        best = progress.probed if scale == before else 0.0  # within another budget, another accuracy is right
        why, now = guard.alarm((many, one), best), strengthened(recipe.inner, progress.strength + 1)
        able = now != strengthened(recipe.inner, progress.strength)
        if why and able and progress.strength < _RETURNS:
            self._go_back(progress, f"{why}, so the attack is made stronger", now=brief(now))
            progress.strength += 1
            return
        progress.probed = max(best, many)
        if not why:
            progress.good = self._packed(progress)

    def _go_back(self, progress: Progress, why: str, **more: str) -> None:
        at, good = progress.step, progress.good
        assert good is not None
        checkpoint.unpack(good, self.job.model, self.forge.optimizer, progress)
        event = {"why": why, "back_to": progress.step, **more}
        progress.events.append({"step": at, **event})
        self.log("back", at, progress.seconds, event)
        if self.job.watch:
            self.job.watch(progress.step, self.job.steps, f"back from step {at} to {progress.step}: {why}")

    # --- the end of an epoch --------------------------------------------------------------------------------------

    def _close_epoch(self, progress: Progress, loss: float) -> None:
        """Validate the weights that would be saved, write the epoch down, and keep them if they are the best yet."""
        job = self.job
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
            "rate": self.forge.optimizer.param_groups[0]["lr"],
            "clean": clean,
            "robust": robust,
        }
        progress.epochs.append({**entry, "seconds": progress.seconds})
        before = progress.epochs[progress.best_epoch - 1] if progress.best_epoch else {"robust": -1.0, "clean": -1.0}
        # Ordinary training is chosen by what it is for, or an untrained epoch could win by a row that chanced to stand.
        first, second = ("robust", "clean") if job.recipe.hardens else ("clean", "robust")
        if (entry[first], entry[second]) > (before[first], before[second]):
            progress.best_epoch, progress.best = epoch, {k: v.clone() for k, v in candidate.items()}
        self.log("epoch", progress.step, progress.seconds, {**entry, "best_epoch": progress.best_epoch})
        if job.watch:
            words = f"epoch {epoch}: clean {clean:.1%}, robust {robust:.1%} on validation rows"
            job.watch(progress.step, job.steps, words)


def surety(job: Job) -> Sure | None:
    """The term whose bound chooses the best epoch, where no attack makes the views and none was asked to choose."""
    if job.plan.select is not None or job.recipe.inner.cost:
        return None
    return next((leaf for leaf in leaves(job.recipe.outer) if isinstance(leaf, Sure)), None)


def validate(job: Job) -> tuple[float, float]:
    """Clean and robust accuracy on the first rows of the validation set; within several threat models, the union's.

    Of a recipe that bounds and attacks nothing, robust is the share of rows that its bound holds.
    """
    shard = Shard.here()
    x, y = job.validation.x[: job.plan.select_rows], job.validation.y[: job.plan.select_rows]
    rows = torch.arange(len(y))[shard.rank :: shard.world]
    right, standing = torch.ones(len(rows), dtype=torch.bool), torch.ones(len(rows), dtype=torch.bool)
    sure = surety(job)
    for threat in threats_of(job.recipe.inner, job.threat) if len(rows) else ():
        if sure:
            device = next(job.model.parameters()).device
            z, label = x[rows].to(device), y[rows].to(device)
            with untouched(job.model), torch.no_grad():
                right &= (job.model(z).argmax(1) == label).cpu()
            standing &= sure.holds(job.model, z, label, threat).cpu()
            continue
        rng = Rng.of(job.seed, rows).fold("validation")
        out = run(job.plan.selector(threat), job.model, x[rows], Untargeted(y[rows]), threat, rng=rng)
        right &= out.status != Status.WRONG_ALREADY
        standing &= out.status == Status.ROBUST
    counts = torch.tensor([int(right.sum()), int((right & standing).sum())])
    if shard.world > 1:
        distributed.all_reduce(counts)
    return int(counts[0]) / len(y), int(counts[1]) / len(y)


def _patience_is_over(job: Job, progress: Progress) -> bool:
    patience = job.plan.patience
    return patience is not None and len(progress.epochs) - progress.best_epoch >= patience > 0 and bool(progress.epochs)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in model.state_dict().items()}
