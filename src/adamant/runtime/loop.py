"""The loop that training runs in: it can be killed and resumed bit for bit, and goes back where training fails."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from adamant.errors import InputError, ModelError
from adamant.runtime import checkpoint, together
from adamant.runtime.checkpoint import Progress, copied
from adamant.runtime.log import Log, Reader
from adamant.runtime.stopping import asked_to_stop
from adamant.shards import Shard

RETURNS = 5  # how often a run may go back for one reason
Watch = Callable[[int, int, str], None]  # step, steps, words


@final
@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the end of an epoch shows of the weights that would be kept."""

    score: tuple[float, ...]  # larger is better; of two that are the same, the earlier is kept
    facts: Mapping[str, float] = field(default_factory=dict[str, float])  # for the log and the report
    words: str = ""  # for whoever watches


@final
@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a probe sees: all is well, so that the run may come back to here; or not; or it goes back at once."""

    well: bool
    back: str = ""  # why it goes back; it goes on with `progress.strength` one higher
    facts: Mapping[str, str] = field(default_factory=dict[str, str])  # for the log


class Work(Protocol):
    """What is trained: one network or several that play against each other, and one update of them."""

    @property
    def model(self) -> nn.Module:
        """All networks of the run in one module: its state is what checkpoints hold and what is kept."""
        ...

    @property
    def optimizers(self) -> Sequence[torch.optim.Optimizer]:
        """In an order that stays; the first says the learning rate in the log."""
        ...

    @property
    def epochs(self) -> int: ...

    @property
    def per_epoch(self) -> int:
        """Steps in an epoch."""
        ...

    @property
    def probe_every(self) -> int | None:
        """Steps between two probes; None: nothing probes, and the end of an epoch is where all is well."""
        ...

    def identity(self) -> str:
        """What must be the same for a checkpoint to be continued, in parts that ` | ` separates."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """What the first line of the log says of the run, beside its steps."""
        ...

    def begin_epoch(self, progress: Progress) -> None:
        """Before the first step of an epoch, and once more where the run goes back to there."""
        ...

    def step(self, progress: Progress) -> float:
        """One update, with draws keyed by `progress.step` and rates times `progress.rate`; returns the loss to watch.

        Between two steps it remembers nothing but what is in the model, the optimisers, `progress.mean` (weights that
        are kept in the place of the live ones, by name) and `progress.memory`. A loss that is no number sends the run
        back with half the rate. Under several processes all must return the same number.
        """
        ...

    def probe(self, progress: Progress) -> Finding:
        """Look whether all is well; asked every `probe_every` steps. What it must remember is `progress.probed`."""
        ...

    def judge(self, progress: Progress) -> Verdict:
        """The end of an epoch: the model holds the weights that would be kept, and must leave with them."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class Upkeep:
    """Where a run is kept and who watches it; it decides no weights."""

    folder: Path | None = None  # where the checkpoint and the log go; nowhere without
    resume: bool = False
    save_every: float = 30.0  # seconds between checkpoints, beside the one after every epoch
    watch: Watch | None = None
    readers: tuple[Reader, ...] = ()  # of the log, as it is written
    shard: Shard = field(default_factory=Shard.here)


@final
@dataclass(frozen=True)
class Report:
    """What a finished training run says of itself; the model holds the best weights already."""

    epochs: tuple[dict[str, Any], ...]
    best_epoch: int
    seconds: float
    steps: int
    events: tuple[dict[str, Any], ...] = ()  # where the run went back: at which step, why, to where, to what


def drive(work: Work, upkeep: Upkeep, *, patience: int | None = None) -> Report:
    """Train in place, no longer than `patience` epochs without a better one; the model ends with the best weights.

    Raises InputError where there is no step to take, ModelError when the loss is no longer a number, however often the
    run goes back, and RunError when a checkpoint of another run is resumed. Ctrl-C and SIGTERM end the step, write a
    checkpoint for `resume`, and raise KeyboardInterrupt.
    """
    if work.epochs < 1 or work.per_epoch < 1:
        raise InputError(f"Training needs at least one step: got {work.epochs} epochs of {work.per_epoch} steps.")
    with asked_to_stop(upkeep.shard) as asked:
        progress = _Run(work, upkeep, patience, asked).whole()
    work.model.load_state_dict(progress.best)
    work.model.eval()
    return Report(tuple(progress.epochs), progress.best_epoch, progress.seconds, progress.step, tuple(progress.events))


@dataclass
class _Run:
    """The loop, and what it does between steps."""

    work: Work
    upkeep: Upkeep
    patience: int | None
    asked: Callable[[], bool]
    log: Log = field(init=False)
    steps: int = field(init=False)

    def whole(self) -> Progress:
        """From the first step, or from the checkpoint, to the last."""
        work, upkeep = self.work, self.upkeep
        self.steps = work.epochs * work.per_epoch
        path = upkeep.folder / "checkpoint.safetensors" if upkeep.folder else None
        name = work.identity() if path else ""
        goes_on = bool(upkeep.resume and path and path.exists())
        if goes_on and path:
            progress = checkpoint.load(path, work.model, work.optimizers, name)
        else:
            progress = Progress()
            progress.good = self._packed(progress)
        self._open_log(progress, goes_on)
        saved = time.monotonic()
        began = saved - progress.seconds
        while progress.step < self.steps and not self._patience_is_over(progress):
            if progress.step % work.per_epoch == 0:
                work.begin_epoch(progress)
            loss = work.step(progress)
            progress.seconds = time.monotonic() - began
            over = (progress.step + 1) % work.per_epoch == 0
            probed = work.probe_every is not None and (progress.step + 1) % work.probe_every == 0
            if not math.isfinite(loss) or ((over or probed) and not together.finite(work.model.state_dict().values())):
                self._no_number(progress)
                continue
            progress.step += 1
            self._tell(progress.step, f"loss {loss:.3f}")
            if over:
                self._close_epoch(progress, loss)
            if probed:
                self._probe(progress)
            elif over and work.probe_every is None:
                progress.good = self._packed(progress)
            late = time.monotonic() - saved > upkeep.save_every
            stop, late = together.any_of([self.asked(), late], upkeep.shard)
            if path and (over or stop or late):
                self._save(path, progress, name)
                saved = time.monotonic()
            if stop:
                self._stop(progress)
        self.log("end", progress.step, progress.seconds, {"best_epoch": progress.best_epoch})
        return progress

    def _patience_is_over(self, progress: Progress) -> bool:
        waited = len(progress.epochs) - progress.best_epoch
        return self.patience is not None and waited >= self.patience > 0 and bool(progress.epochs)

    def _open_log(self, progress: Progress, goes_on: bool) -> None:
        upkeep, shard = self.upkeep, self.upkeep.shard
        path = upkeep.folder / "log.jsonl" if upkeep.folder and shard.first else None
        self.log = Log(path, upkeep.readers if shard.first else (), until=progress.seconds if goes_on else None)
        facts = {"steps": self.steps, **self.work.facts(), "processes": shard.world}
        self.log("resumed" if goes_on else "start", progress.step, progress.seconds, facts)

    def _tell(self, step: int, words: str) -> None:
        if self.upkeep.watch:
            self.upkeep.watch(step, self.steps, words)

    def _stop(self, progress: Progress) -> None:
        self.log("stopped", progress.step, progress.seconds)
        self.upkeep.shard.meet()  # the first that leaves would take the others with it, in the middle of a file
        raise KeyboardInterrupt

    def _save(self, path: Path, progress: Progress, name: str) -> None:
        if self.upkeep.shard.first:
            checkpoint.save(path, self.work.model, self.work.optimizers, progress, name)

    def _packed(self, progress: Progress) -> checkpoint.State:
        return checkpoint.pack(self.work.model, self.work.optimizers, progress)

    # --- going back -----------------------------------------------------------------------------------------------

    def _no_number(self, progress: Progress) -> None:
        """Back to where the run was well, with half the learning rate; after some such returns, an error."""
        before = sum(e["why"].startswith("the loss") for e in progress.events)
        if before == RETURNS:
            rates = " and ".join(f"{o.defaults['lr'] * progress.rate:g}" for o in self.work.optimizers)
            raise ModelError(
                f"The loss is no longer a number at step {progress.step} of {self.steps}, for the {RETURNS + 1}th "
                f"time: lower the learning rate (now {rates}). The last checkpoint is kept."
            )
        self._go_back(progress, "the loss or its slope was no number, so the learning rate is halved", {})
        progress.rate /= 2

    def _probe(self, progress: Progress) -> None:
        found = self.work.probe(progress)
        if found.back and progress.strength < RETURNS:
            self._go_back(progress, found.back, found.facts)
            progress.strength += 1
        elif found.well:
            progress.good = self._packed(progress)

    def _go_back(self, progress: Progress, why: str, more: Mapping[str, str]) -> None:
        at, good = progress.step, progress.good
        assert good is not None
        checkpoint.unpack(good, self.work.model, self.work.optimizers, progress)
        event = {"why": why, "back_to": progress.step, **more}
        progress.events.append({"step": at, **event})
        self.log("back", at, progress.seconds, event)
        self._tell(progress.step, f"back from step {at} to {progress.step}: {why}")

    # --- the end of an epoch --------------------------------------------------------------------------------------

    def _close_epoch(self, progress: Progress, loss: float) -> None:
        """Judge the weights that would be kept, write the epoch down, and keep them if they are the best yet."""
        work = self.work
        live = copied(work.model.state_dict())
        candidate: dict[str, Tensor] = {**live, **progress.mean}
        work.model.load_state_dict(candidate)
        verdict = work.judge(progress)
        work.model.load_state_dict(live)
        epoch = progress.step // work.per_epoch
        rate = work.optimizers[0].param_groups[0]["lr"]
        entry = {"epoch": epoch, "step": progress.step, "loss": loss, "rate": rate, **verdict.facts}
        progress.epochs.append({**entry, "seconds": progress.seconds})
        if list(verdict.score) > progress.score:
            progress.best_epoch, progress.score, progress.best = epoch, list(verdict.score), copied(candidate)
        self.log("epoch", progress.step, progress.seconds, {**entry, "best_epoch": progress.best_epoch})
        self._tell(progress.step, f"epoch {epoch}: {verdict.words}")
