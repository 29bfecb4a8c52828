"""Playing: the loop around any game's update, which measures along the way and keeps the best."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from adamant.errors import InputError, ModelError
from adamant.generation.base import Game, Material, Measured, Turn
from adamant.generation.files import Saved, save
from adamant.random import Rng, permutation
from adamant.runtime.average import update as take_in
from adamant.runtime.knobs import Constant, Knob


@final
@dataclass(frozen=True, kw_only=True)
class Play:
    """How long a game is played, in which batches, and how often it is measured."""

    steps: int = 3000
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
    watch: Callable[[int, int, str], None] | None = field(default=None, repr=False)  # step, steps, words


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Played:
    """What a finished run leaves: the best networks, in eval mode, and what was measured along the way."""

    saved: Saved
    measured: tuple[dict[str, Any], ...]  # step, seconds, score, the losses and the figures
    best_step: int
    warnings: tuple[str, ...]
    seconds: float
    shown: tuple[tuple[int, Tensor], ...]  # step and pictures


class NoNumberError(ArithmeticError):
    """A loss or its gradient is not finite."""


def fit(match: Match) -> Played:
    """Play the game and keep the networks that scored best; raises InputError before, ModelError where it diverges."""
    match.play.check(len(match.material.data.y))
    match.game.check(match.material)
    game, material, play = match.game, match.material, match.play
    networks = game.build(material.shape, material.classes, match.seed).to(match.device)
    players = game.players(networks)
    rates = {name: [g["lr"] for g in o.param_groups] for name, o in players.items()}
    mean = {k: v.detach().clone() for k, v in _averaged(game, networks).items()}
    began, entries, shown = time.monotonic(), list[dict[str, Any]](), list[tuple[int, Tensor]]()
    best: tuple[float, int, dict[str, Tensor], tuple[str, ...]] = (-math.inf, 0, {}, ())
    for step in range(play.steps):
        done = step / play.steps
        for name, optimizer in players.items():
            for group, rate in zip(optimizer.param_groups, rates[name], strict=True):
                group["lr"] = rate * play.shape(done)
        rows = _rows(match, step)
        x, y = material.data.x[rows].to(match.device), material.data.y[rows].to(match.device)
        rng = Rng.of(match.seed, rows).to(x.device).fold("step").fold(step)
        turn = Turn(
            x=x, y=y, rng=rng, step=step, done=done, material=material,
            descend=lambda name, loss: _descend(players[name], loss),
        )  # fmt: skip
        quick: AbstractContextManager[Any] = (
            torch.autocast(torch.device(match.device).type, torch.bfloat16) if play.autocast else nullcontext()
        )
        networks.train()
        try:
            with quick:
                losses = {k: float(v) for k, v in game.update(networks, turn).items()}
        except NoNumberError as error:
            raise ModelError(f"The loss is no longer a number at step {step}: lower the learning rate.") from error
        if game.average:
            _take_in(game, mean, networks, step, play.steps)
        if match.watch:
            match.watch(step + 1, play.steps, " ".join(f"{k} {v:.3f}" for k, v in losses.items()))
        if (step + 1) * play.measures // play.steps > step * play.measures // play.steps:
            live = {k: v.detach().clone() for k, v in networks.state_dict().items()}
            networks.load_state_dict({**live, **mean})
            networks.eval()
            with torch.no_grad():
                found: Measured = game.measure(networks, material, match.seed)
                shown.append((step + 1, game.show(networks, material, match.seed).cpu()))
            entries.append(
                {"step": step + 1, "seconds": time.monotonic() - began, "score": found.score, **losses, **found.figures}
            )
            if found.score > best[0] or not best[2]:
                best = (found.score, step + 1, {**live, **_clone(mean)}, found.warnings)
            networks.load_state_dict(live)
    networks.load_state_dict(best[2])
    networks.eval().requires_grad_(False)
    saved = Saved(game=game, networks=networks, shape=material.shape, classes=material.data.classes)
    if match.folder:
        save(match.folder / "game.safetensors", saved)
    return Played(
        saved=saved, measured=tuple(entries), best_step=best[1], warnings=best[3],
        seconds=time.monotonic() - began, shown=tuple(shown),
    )  # fmt: skip


def _clone(held: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in held.items()}


def _rows(match: Match, step: int) -> Tensor:
    size, n = match.play.batch_size, len(match.material.data.y)
    epoch, place = divmod(step, n // size)
    return permutation(n, match.seed, f"epoch {epoch}")[place * size : (place + 1) * size]


def _averaged(game: Game, networks: nn.Module) -> dict[str, Tensor]:
    if not game.average:
        return {}
    heads = tuple(f"{name}." for name in game.averaged)
    return {k: v for k, v in networks.state_dict().items() if k.startswith(heads)}


def _take_in(game: Game, mean: dict[str, Tensor], networks: nn.Module, step: int, steps: int) -> None:
    assert game.average
    held = nn.ModuleDict({name: networks.get_submodule(name) for name in game.averaged})
    take_in(game.average, mean, held, step, steps)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """The gradient of the loss by this player's weights alone, followed."""
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    for p, g in zip(weights, gradients, strict=True):
        p.grad = g
    if not (math.isfinite(float(loss.detach())) and all(bool(g.isfinite().all()) for g in gradients if g is not None)):
        raise NoNumberError
    optimizer.step()
    for p in weights:
        p.grad = None
