"""Hardening as work for the loop: what begins an epoch, what is looked at on the way, and what judges the end."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import distributed, nn

from adamant.adversary import Status
from adamant.calling import untouched
from adamant.engine import run
from adamant.goals import Untargeted
from adamant.random import Rng, blend, permutation
from adamant.runtime import together
from adamant.runtime.checkpoint import Progress
from adamant.runtime.loop import RETURNS, Finding, Report, Upkeep, Verdict, drive
from adamant.shards import Shard
from adamant.training.check import check
from adamant.training.parts import Refreshed, parts_of, scaled, threats_of
from adamant.training.step import Forge, Job, placed, rows_in, strengthened
from adamant.training.still import dropout, frozen
from adamant.training.teacher import teachers_of
from adamant.training.views import Sure, leaves
from adamant.values import brief


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
    upkeep = Upkeep(
        folder=job.folder, resume=job.resume, save_every=job.plan.save_every, watch=job.watch, readers=job.readers,
        shard=shard,
    )  # fmt: skip
    with frozen(job.model, job.plan), dropout(job.model, job.plan.dropout):
        report = drive(_Hardening(Forge.of(job, shard)), upkeep, patience=job.plan.patience)
    if job.plan.channels_last:
        job.model.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    return report


@final
@dataclass(frozen=True)
class _Hardening:
    """A job as the loop sees it."""

    forge: Forge

    @property
    def model(self) -> nn.Module:
        return self.forge.job.model

    @property
    def optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        return (self.forge.optimizer,)

    @property
    def epochs(self) -> int:
        return self.forge.job.plan.epochs

    @property
    def per_epoch(self) -> int:
        return self.forge.job.per_epoch

    @property
    def probe_every(self) -> int | None:
        recipe = self.forge.job.recipe
        return recipe.guard.interval(recipe.cost * self.forge.job.plan.batch_size) if recipe.guard else None

    def identity(self) -> str:
        return identity(self.forge.job)

    def facts(self) -> dict[str, Any]:
        job = self.forge.job
        told = {"recipe": brief(job.recipe), "plan": brief(job.plan), "threat": brief(job.threat), "seed": job.seed}
        return {"rows": len(job.data.y), **told}

    def begin_epoch(self, progress: Progress) -> None:
        """Parts that ask for it see the whole set."""
        job = self.forge.job
        parts = [part for part in parts_of(job.recipe.inner) if isinstance(part, Refreshed)]
        if not parts:
            return
        everything = torch.arange(rows_in(job))
        x, y = placed(job, everything)
        rng = Rng.of(job.seed, everything).to(x.device).fold("refresh").fold(progress.step)
        threat = scaled(job.threat, job.recipe.eps(progress.step / job.steps))
        with untouched(job.model, seed=blend(job.seed, progress.step)):
            for part in parts:
                part.refresh(job.model, x, y, threat, rng, progress.memory)

    def step(self, progress: Progress) -> float:
        return self.forge.step(progress)

    def probe(self, progress: Progress) -> Finding:
        """The guard looks; where something is wrong and the attack can be made stronger, the run goes back."""
        job, recipe, guard, between = (
            self.forge.job,
            self.forge.job.recipe,
            self.forge.job.recipe.guard,
            self.probe_every,
        )
        assert guard is not None
        assert between is not None
        rows = permutation(len(job.data.y), job.seed, "guard")[: guard.rows]
        x, y = placed(job, rows)
        scale, before = (recipe.eps(max(0, s) / job.steps) for s in (progress.step, progress.step - between))
        seen = guard.probe(job.model, x, y, scaled(job.threat, scale), Rng.of(job.seed, rows).fold("guard"))
        many, one = together.from_first(seen, self.forge.shard)
        best = progress.probed if scale == before else 0.0  # within another budget, another accuracy is right
        why, now = guard.alarm((many, one), best), strengthened(recipe.inner, progress.strength + 1)
        able = progress.strength < RETURNS and now != strengthened(recipe.inner, progress.strength)
        if why and able:
            return Finding(well=False, back=f"{why}, so the attack is made stronger", facts={"now": brief(now)})
        progress.probed = max(best, many)
        return Finding(well=not why)

    def judge(self, progress: Progress) -> Verdict:
        """Validation; ordinary training is chosen by clean accuracy, which is what it is for.

        Or an untrained epoch could win by a row that chanced to stand.
        """
        job = self.forge.job
        clean, robust = validate(job)
        return Verdict(
            score=(robust, clean) if job.recipe.hardens else (clean, robust),
            facts={"clean": clean, "robust": robust},
            words=f"clean {clean:.1%}, robust {robust:.1%} on validation rows",
        )


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
