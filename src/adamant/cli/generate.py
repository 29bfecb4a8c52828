"""adamant generate: let networks play against each other until they make inputs like the given ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adamant import runs
from adamant.cli import words
from adamant.cli.common import Data, at_least_one, of_this_process
from adamant.data import DataSet
from adamant.errors import InputError
from adamant.files import make_folder
from adamant.generation.base import Game, Material, Sampler
from adamant.generation.fit import Match, Play, Played, fit
from adamant.generation.judge import train_judge
from adamant.generation.measures import copied
from adamant.generation.pictures import COLUMNS, Gallery, Grid, Map, sheet
from adamant.generation.samples import draw, write_samples
from adamant.models import as_logits, load_model
from adamant.report.generation import Points, Sheet, Shown
from adamant.shards import Shard
from adamant.values import brief

_NOT_CONFIG = ("out", "resume", "json", "quiet", "name")
_FOLLOWED = 60  # pictures of each measurement
_COMPARED = 1000  # rows that are searched for near ones among the training rows


@dataclass(frozen=True, kw_only=True)
class Generate(Data):
    """Train a generator, measure what it makes, and save it with samples and a report."""

    split: str = "train"
    model: str = "gan"
    """The game: gan, 'gan(labels=Projection())', 'gan(loss=Relativistic(), penalties=(R1(1), R2(1)))' ..."""
    steps: int = 3000
    batch_size: int = 64
    shape: str = "Constant()"
    """The learning rate over the run: Constant(), Cosine(), Ramp() ..."""
    measures: int = 6
    """How often it is measured on the way; the best is kept."""
    save_every: float = 30.0
    """Seconds between checkpoints, beside the one after every measurement."""
    autocast: bool = False
    """The passes in bfloat16; weights and averages stay float32."""
    samples: int = 1000
    """So many rows are made at the end, and written to samples.npz."""
    target: str | None = None
    """For a game that attacks: the model, written as elsewhere."""
    arch: str | None = None
    """For a target that is weights alone: zoo:NAME or package.module:callable."""
    threat: str = ""
    """What such a game may do: linf:0.3 ..."""
    name: str | None = None
    """What the report calls the run."""
    out: str = "runs/generate"
    """The folder of the run."""
    resume: bool = False
    """Go on from the checkpoint in the folder, bit for bit."""

    def run(self) -> int:
        """Play, measure on test rows, and leave the run folder."""
        at_least_one(steps=self.steps, batch_size=self.batch_size, measures=self.measures, samples=self.samples)
        self.check_device()
        game, shard, folder = words.game(self.model), Shard.here(), make_folder(Path(self.out))
        material, test = self._material(game)
        me = self if shard.first else replace(self, quiet=True)
        with me.progress("generate", "steps") as tell:
            played = fit(
                Match(
                    game=game, material=material, play=self._play(), seed=self.seed, device=self._place(),
                    folder=folder, resume=self.resume, watch=tell,
                )
            )  # fmt: skip
        if shard.first:
            self._write(folder, game, played, material, test)
        shard.leave()
        return 0

    def _play(self) -> Play:
        return Play(
            steps=self.steps, batch_size=self.batch_size, shape=words.shape(self.shape), measures=self.measures,
            save_every=self.save_every, autocast=self.autocast,
        )  # fmt: skip

    def _material(self, game: Game) -> tuple[Material, DataSet]:
        if isinstance(game, Sampler) and (self.target or self.threat):
            raise InputError(
                f"{type(game).__name__} attacks no model: leave out --target and --threat, or take --model advgan."
            )
        data, validation, test = self.load_data(), self.load_data("val"), self.load_data("test")
        target = self._target(data) if self.target else None
        threat = words.threat(self.threat) if self.threat else None
        material = Material(data=data, validation=validation, target=target, threat=threat)
        game.check(material)  # before anything is trained
        self._play().check(len(data))
        if isinstance(game, Sampler):
            self.console.print("Training the classifier whose features measure what is made.")
            material = replace(material, judge=train_judge(data))
        return material, test

    def _target(self, data: DataSet) -> nn.Module:
        assert self.target is not None
        raw = load_model(self.target, arch=self.arch, shape=tuple(data.x.shape[1:]), classes=len(data.classes))
        return as_logits(raw.to(self._place()), data.x[:16].to(self._place()))[0]

    def _place(self) -> str:
        return self.device or of_this_process() or "cpu"

    def _write(self, folder: Path, game: Game, played: Played, material: Material, test: DataSet) -> None:
        last = replace(material, validation=test)
        networks = played.saved.networks
        found = game.measure(networks, last, self.seed + 1)  # other draws than those that chose
        held: dict[str, Any] = {"figures": dict(found.figures), "warnings": list(found.warnings), "rows": len(test)}
        held["floor"] = held["ceiling"] = held["judge"] = None
        if material.judge is not None:
            made = draw(played.saved, self.samples, seed=self.seed, judge=material.judge)
            write_samples(folder / "samples.npz", made)
            held |= self._beside(last, made)
        facts: dict[str, Any] = {
            "game": brief(game),
            "data": runs.facts_of_data(material.data),
            "rows": len(material.data),
            "seed": self.seed,
            "steps": played.measured[-1]["step"],
            "measured": list(played.measured),
            "best_step": played.best_step,
            "events": list(played.events),
            "seconds": round(played.seconds, 3),
            "test": held,
        }
        story = runs.Story(
            name=self.name or f"{brief(game)} on {material.data.name}",
            model=runs.facts_of_model(brief(game), networks),
            config={
                "command": "generate",
                **{f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NOT_CONFIG},
            },
            command=runs.command_line(),
            device=runs.device_of(networks),
        )
        self.say(runs.write_generation(folder, facts, self._shown(game, played, last), story))
        self._tell(folder, played, held)

    def _beside(self, last: Material, made: DataSet) -> dict[str, Any]:
        reference, judge = last.reference, last.judge
        assert judge is not None
        test, train = last.validation, last.data
        near = copied(made.x[:_COMPARED], train.x, test.x[:_COMPARED])
        return {
            "rows": reference.rows,
            "floor": asdict(reference.floor),
            "ceiling": asdict(reference.ceiling),
            "judge": float((judge.look(test.x)[1] == test.y).double().mean()),
            "copied": near,
        }

    def _shown(self, game: Game, played: Played, last: Material) -> Shown:
        networks, pictures = played.saved.networks, len(last.shape) == 3 and last.shape[0] in (1, 3)
        drawable = pictures or len(last.shape) == 1
        more = game.gallery(networks, last, self.seed) if isinstance(game, Gallery) and drawable else ()
        title = "Samples" if isinstance(game, Sampler) else "Test rows as they are changed"
        own = Grid(title=title, x=game.show(networks, last, self.seed).cpu(), columns=COLUMNS)
        again = any(isinstance(g, Grid) and torch.equal(g.x.cpu(), own.x) for g in more)
        grids = [own] if pictures and not again else []
        sheets: list[Sheet] = [(g.title, _picture(g)) for g in (*grids, *more) if isinstance(g, Grid)]
        followed = played.shown if pictures else ()
        along = [(step, _picture(Grid(title="", x=x[:_FOLLOWED], columns=COLUMNS))) for step, x in followed]
        maps: list[Points] = [
            (m.title, _numbers(m.points), m.y.cpu().numpy(), _numbers(m.drawn)) for m in more if isinstance(m, Map)
        ]
        return Shown(along=along, sheets=sheets, maps=maps)

    def _tell(self, folder: Path, played: Played, held: dict[str, Any]) -> None:
        figures = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in held["figures"].items())
        self.console.print(f"Test rows: {figures}.", soft_wrap=True)
        if held["floor"]:
            self.console.print(
                f"Frechet distance of real rows (the floor) {held['floor']['frechet']:.3g}, of noise "
                f"{held['ceiling']['frechet']:.3g}; {held['copied']:.1%} of samples lie nearer to a training row than "
                "99 % of test rows do.",
                soft_wrap=True,
            )
        for line in held["warnings"]:
            self.console.print(line, soft_wrap=True)
        self.console.print(
            f"Best step {played.best_step} of {played.measured[-1]['step']}. {played.seconds:.0f} s. Seed {self.seed}.",
            soft_wrap=True,
        )
        samples = f"  Samples: {folder / 'samples.npz'}" if held["floor"] else ""
        self.console.print(
            f"Networks: {folder / 'game.safetensors'}{samples}  Report: {folder / 'report.html'}", soft_wrap=True
        )


def _picture(grid: Grid) -> np.ndarray[Any, np.dtype[np.float32]]:
    return sheet(grid).numpy()


def _numbers(x: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    return x.detach().to(torch.float32).cpu().numpy()
