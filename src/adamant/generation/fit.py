"""Playing: any game as work for the loop, which can be killed and resumed bit for bit, and keeps the best networks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, distributed, nn

from adamant.errors import InputError
from adamant.generation.base import Game, Material, Measured, Turn
from adamant.generation.files import Saved, save
from adamant.random import Rng, permutation
from adamant.runtime import average, together
from adamant.runtime.checkpoint import Progress, copied
from adamant.runtime.knobs import Constant, Knob
from adamant.runtime.log import Reader
from adamant.runtime.loop import Finding, Report, Upkeep, Verdict, Watch, drive
from adamant.shards import Shard
from adamant.values import brief

_TOLD = 4  # so many figures for whoever watches


@final
@dataclass(frozen=True, kw_only=True)
class Play:
    """How long a game is played, in which batches, and how often it is measured."""

    steps: int = 3000  # rounded down to as many for each measurement
    batch_size: int = 64
    shape: Knob = Constant()  # of every player's learning rate over the run
    measures: int = 6  # how often along the way; the last time is at the end
    save_every: float = 30.0  # seconds between checkpoints, beside the one after every measurement
    autocast: bool = False  # bfloat16 in the passes; weights and averages stay float32

    def check(self, rows: int) -> None:
        """Raise InputError for a play that cannot be carried out on so many rows."""
        for name in ("steps", "batch_size", "measures"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give a whole number from 1 on.")
        if self.steps < self.measures:
            raise InputError(f"{self.steps} steps cannot be measured {self.measures} times: lower --measures.")
        if rows < self.batch_size:
            raise InputError(f"There are {rows} rows, fewer than one batch of {self.batch_size}: lower --batch-size.")


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Match:
    """One run of a game: everything that decides its weights, and where and how it is watched."""

    game: Game
    material: Material
    play: Play = Play()
    seed: int = 0
    device: str = "cpu"
    folder: Path | None = None  # where checkpoint, log and game.safetensors go; nowhere without
    resume: bool = False
    watch: Watch | None = field(default=None, repr=False)  # step, steps, words
    readers: tuple[Reader, ...] = field(default=(), repr=False)  # of the log, as it is written


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Played:
    """What a finished run leaves: the best networks, in eval mode, and what was measured along the way."""

    saved: Saved
    final: Measured  # of the best networks
    measured: tuple[dict[str, Any], ...]  # step, seconds, score, the figures, and the losses since the last time
    best_step: int
    seconds: float
    shown: tuple[tuple[int, Tensor], ...]  # step and pictures
    events: tuple[dict[str, Any], ...]  # where the run went back


def fit(match: Match) -> Played:
    """Play the game and keep the networks that scored best.

    Raises InputError where game, play and rows do not fit, ModelError when a loss is no number however often the run
    goes back, RunError when a checkpoint of another run is resumed. Ctrl-C and SIGTERM end the step, write a
    checkpoint for `resume`, and raise KeyboardInterrupt.
    """
    match.play.check(len(match.material.data))
    match.game.check(match.material)
    shard = Shard.here()
    if match.play.batch_size % shard.world:
        raise InputError(f"A batch of {match.play.batch_size} rows cannot be shared evenly by {shard.world} processes.")
    if shard.world > 1:
        shard.join()
    work = _Playing.of(match, shard)
    upkeep = Upkeep(
        folder=match.folder, resume=match.resume, save_every=match.play.save_every, watch=match.watch,
        readers=match.readers, shard=shard,
    )  # fmt: skip
    report = drive(work, upkeep)
    return _played(match, work, report)


def _played(match: Match, work: _Playing, report: Report) -> Played:
    material = match.material
    networks = work.model.eval().requires_grad_(False)
    saved = Saved(game=match.game, networks=networks, shape=material.shape, classes=material.data.classes)
    if match.folder and work.shard.first:
        save(match.folder / "game.safetensors", saved)
    best_step = report.epochs[report.best_epoch - 1]["step"]
    if not work.shown:  # resumed where nothing was left to do
        work.shown.append((best_step, match.game.show(networks, material, match.seed).cpu()))
    return Played(
        saved=saved,
        final=match.game.measure(networks, material, match.seed),
        measured=report.epochs,
        best_step=best_step,
        seconds=report.seconds,
        shown=tuple(work.shown),
        events=report.events,
    )


class NoNumberError(ArithmeticError):
    """A loss or its gradient is not finite."""


@final
@dataclass(frozen=True)
class _Playing:
    """A match as the loop sees it."""

    match: Match
    shard: Shard
    model: nn.Module
    players: dict[str, torch.optim.Optimizer]
    rates: dict[str, list[float]]  # of each group of weights, before schedule and returns
    shown: list[tuple[int, Tensor]] = field(default_factory=lambda: [])

    @staticmethod
    def of(match: Match, shard: Shard) -> _Playing:
        networks = match.game.build(match.material.shape, match.material.classes, match.seed).to(match.device)
        try:
            players = match.game.players(networks)
        except ValueError as error:  # of an optimiser, which says what is wrong
            raise InputError(f"The players of {brief(match.game)} cannot move: {error}.") from None
        rates = {name: [group["lr"] for group in held.param_groups] for name, held in players.items()}
        return _Playing(match, shard, networks, players, rates)

    @property
    def optimizers(self) -> Sequence[torch.optim.Optimizer]:
        return tuple(self.players.values())

    @property
    def epochs(self) -> int:
        return self.match.play.measures

    @property
    def per_epoch(self) -> int:
        return self.match.play.steps // self.match.play.measures

    @property
    def probe_every(self) -> None:
        return None

    def identity(self) -> str:
        match, material = self.match, self.match.material
        rows = " and ".join(part.fingerprint()[:16] for part in (material.data, material.validation))
        others = "".join(f" | {_digest(net)[:16]}" for net in (material.judge, material.target) if net is not None)
        within = f" | {brief(material.threat)}" if material.threat is not None else ""
        play = brief(replace(match.play, save_every=Play.save_every))  # which decides nothing
        return f"{brief(match.game)} | {play} | seed {match.seed} | rows sha256 {rows}{others}{within}"

    def facts(self) -> dict[str, Any]:
        match = self.match
        return {
            "rows": len(match.material.data), "game": brief(match.game), "play": brief(match.play), "seed": match.seed,
        }  # fmt: skip

    def begin_epoch(self, progress: Progress) -> None:
        """Nothing is looked at before a measurement."""

    def probe(self, progress: Progress) -> Finding:
        """Nobody probes: the measurements are the good places."""
        return Finding(well=True)

    def step(self, progress: Progress) -> float:
        match, step = self.match, progress.step
        steps = self.epochs * self.per_epoch
        game, play, done = match.game, match.play, step / steps
        if game.average and not progress.mean:
            progress.mean = copied(self._averaged())
        for name, optimizer in self.players.items():
            for group, rate in zip(optimizer.param_groups, self.rates[name], strict=True):
                group["lr"] = rate * play.shape(done) * progress.rate
        self.model.train()
        try:
            with _quick(match):
                losses = {name: float(loss) for name, loss in game.update(self.model, self._turn(step, done)).items()}
        except NoNumberError:
            return math.nan
        losses = {name: together.mean(loss, self.shard) for name, loss in losses.items()}
        together.level(self.model, self.shard)
        if game.average:
            self._take_in(progress, steps)
        for name, loss in losses.items():
            held = progress.memory.setdefault(f"loss/{name}", torch.zeros(2, dtype=torch.float64))
            progress.memory[f"loss/{name}"] = held.cpu() + torch.tensor([loss, 1.0], dtype=torch.float64)
        return sum(losses.values())

    def judge(self, progress: Progress) -> Verdict:
        match, material = self.match, self.match.material
        self.model.eval()
        with torch.no_grad():
            found = match.game.measure(self.model, material, match.seed)
            pictures = match.game.show(self.model, material, match.seed).float().cpu()
        score = together.from_first([found.score], self.shard)
        progress.memory[f"shown/{progress.step}"] = pictures
        self.shown[:] = sorted((int(k.split("/")[1]), v) for k, v in progress.memory.items() if k.startswith("shown/"))
        sums = {k.split("/")[1]: v for k, v in progress.memory.items() if k.startswith("loss/")}
        progress.memory = {k: v for k, v in progress.memory.items() if not k.startswith("loss/")}
        losses = {f"loss_{name}": float(held[0] / held[1]) for name, held in sums.items()}
        told = ", ".join(f"{name} {value:.3g}" for name, value in list(found.figures.items())[:_TOLD])
        words = ". ".join((told, *found.warnings))
        return Verdict(score=score, facts={"score": score[0], **found.figures, **losses}, words=words)

    def _turn(self, step: int, done: float) -> Turn:
        match, data = self.match, self.match.material.data
        size = match.play.batch_size
        epoch, place = divmod(step, len(data) // size)
        rows = permutation(len(data), match.seed, f"epoch {epoch}")[place * size : (place + 1) * size]
        rows = rows[self.shard.rank :: self.shard.world]
        x, y = data.x[rows].to(match.device), data.y[rows].to(match.device)
        rng = Rng.of(match.seed, rows).to(x.device).fold("step").fold(step)
        return Turn(x=x, y=y, rng=rng, step=step, done=done, material=match.material, descend=self._descend)

    def _descend(self, name: str, loss: Tensor) -> None:
        """The gradient of the loss by this player's weights alone, the same in all processes, and a step along it."""
        optimizer = self.players[name]
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        found = zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True)
        used = [(p, g) for p, g in found if g is not None]  # pyright: ignore[reportUnnecessaryComparison]
        gradients = _shared([g for _, g in used], self.shard)
        if not (math.isfinite(together.mean(float(loss.detach()), self.shard)) and together.finite(gradients)):
            raise NoNumberError
        for (p, _), g in zip(used, gradients, strict=True):
            p.grad = g
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _averaged(self) -> dict[str, Tensor]:
        heads = tuple(f"{name}." for name in self.match.game.averaged)
        return {k: v for k, v in self.model.state_dict().items() if k.startswith(heads)}

    def _take_in(self, progress: Progress, steps: int) -> None:
        assert self.match.game.average
        held = nn.ModuleDict({name: self.model.get_submodule(name) for name in self.match.game.averaged})
        average.update(self.match.game.average, progress.mean, held, progress.step, steps)


def _quick(match: Match) -> AbstractContextManager[Any]:
    kind = torch.device(match.device).type
    return torch.autocast(kind, torch.bfloat16) if match.play.autocast else nullcontext()


def _shared(gradients: list[Tensor], shard: Shard) -> list[Tensor]:
    """The mean over the processes."""
    if shard.world == 1:
        return gradients
    whole = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(whole)
    parts = (whole / shard.world).split([g.numel() for g in gradients])
    return [part.view_as(g) for part, g in zip(parts, gradients, strict=True)]


def _digest(net: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in net.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
