"""adamant train: make a model that is harder to change the mind of."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from torch import nn

from adamant import runs
from adamant.bounds import initialise_for_bounds
from adamant.cli import words
from adamant.cli.common import Source, at_least_one
from adamant.data import DataSet, load_data
from adamant.errors import InputError
from adamant.files import make_folder
from adamant.models import Architecture, Normalised, as_logits, save_model
from adamant.runtime import to_mlflow, to_tensorboard
from adamant.runtime.log import Reader
from adamant.shards import Shard
from adamant.training import Job, Plan, Report, fit
from adamant.training.fit import surety
from adamant.training.forecast import forecast
from adamant.training.views import Layered, leaves
from adamant.values import brief

_NOT_CONFIG = ("out", "resume", "json", "quiet", "name")


@dataclass(frozen=True, kw_only=True)
class Train(Source):
    """Train, or harden, a model by a recipe; the best checkpoint on validation rows is what is saved."""

    split: str = "train"
    threat: str = ""
    """What the adversary may do, in training and in validation: linf:0.3, l2:0.5 ..."""
    recipe: str = "madry()"
    """standard(), augmented(), mixed(lam=1), madry(attack=PGD(steps=7)) ...; see adamant recipes."""
    epochs: int = 10
    batch_size: int = 128
    optimizer: str = "Adam()"
    """Adam(rate=0.002) or SGD(rate=0.1)."""
    shape: str = "OneCycle()"
    """The learning rate over the run: OneCycle(peak=0.3), Cosine(), Ramp(), Constant()."""
    l1: float = 0.0
    """Times the sum of absolute weights, added to the loss."""
    l2: float = 0.0
    """Weight decay."""
    dropout: float = 0.0
    """Before the last linear layer."""
    clip: float | None = None
    """The longest gradient of all weights together that a step follows."""
    augment: str = ""
    """Changes to the training rows, one after another: 'Flip(), Crop(4)'."""
    extra_data: str | None = None
    """Further rows to learn from, such as synthetic ones; written like --data."""
    extra: float = 0.5
    """Their share of every batch."""
    freeze: tuple[str, ...] = ()
    """Modules and parameters that stay as they are, as patterns: 'features.*'."""
    probe: float = 0.0
    """The share of the run that trains the last linear layer alone."""
    select: str | None = None
    """The attack that the best epoch is chosen by; a short one of the margin by default."""
    select_rows: int = 512
    """So many validation rows it attacks."""
    patience: int | None = None
    """Stop after so many epochs without a better checkpoint."""
    save_every: float = 30.0
    """Seconds between checkpoints, beside the one after every epoch."""
    channels_last: bool = False
    """Hand images to the model in channels-last layout."""
    autocast: bool = False
    """The passes in bfloat16; perturbations, losses and averages stay float32."""
    compile: bool = False
    """Make one graph of the model for the attack and one for the update; takes a minute at first."""
    log: tuple[Literal["tensorboard", "mlflow"], ...] | None = None
    """Who else reads the log: tensorboard (where it is installed, also without asking), mlflow."""
    name: str | None = None
    """What the report calls the run."""
    out: str = "runs/train"
    """The folder of the run."""
    resume: bool = False
    """Go on from the checkpoint in the folder, bit for bit."""

    def run(self) -> int:
        """Train and leave the run folder."""
        if not self.threat:
            raise InputError("Which threat? Give --threat, for example --threat linf:0.3.")
        at_least_one(select_rows=self.select_rows, patience=self.patience, limit=self.limit)
        threat, recipe, plan = words.threat(self.threat), words.recipe(self.recipe), self._plan()
        shard = Shard.here()
        folder = make_folder(Path(self.out))
        raw, data = self.load()
        validation = load_data(str(self.data), split="val", data_dir=self.data_dir)
        extra = load_data(self.extra_data, split=self.split, data_dir=self.data_dir) if self.extra_data else None
        if str(self.model).startswith("zoo:") and any(isinstance(leaf, Layered) for leaf in leaves(recipe.outer)):
            initialise_for_bounds(raw, self.seed)  # the weights of ordinary training bound nothing
        model, notes = as_logits(raw, data.x[:16].to(runs.device_of(raw)))
        me = self if shard.first else replace(self, quiet=True)
        job = Job(
            model=model, data=data, validation=validation, extra=extra, threat=threat, recipe=recipe, plan=plan,
            seed=self.seed, folder=folder, resume=self.resume, readers=self._readers(folder) if shard.first else (),
        )  # fmt: skip
        if shard.first:
            expected = forecast(job)  # or a refusal, before anything is printed
            self.console.print(recipe.explain(), soft_wrap=True)
            self.console.print(f"{expected}", soft_wrap=True)
        with me.progress("train", "steps") as tell:
            report = fit(replace(job, watch=tell))
        if shard.first:
            self._write(folder, raw, notes, job, report, data)
        shard.leave()
        return 0

    def _plan(self) -> Plan:
        return Plan(
            epochs=self.epochs, batch_size=self.batch_size, optimizer=words.optimizer(self.optimizer),
            shape=words.shape(self.shape), l1=self.l1, l2=self.l2, dropout=self.dropout, clip=self.clip,
            augment=words.augments(self.augment), extra=self.extra if self.extra_data else 0.0, freeze=self.freeze,
            probe=self.probe, select=words.attack(self.select) if self.select else None, select_rows=self.select_rows,
            patience=self.patience, save_every=self.save_every, channels_last=self.channels_last,
            autocast=self.autocast, compile=self.compile,
        )  # fmt: skip

    def _readers(self, folder: Path) -> tuple[Reader, ...]:
        asked = self.log if self.log is not None else ("tensorboard",) if to_tensorboard.installed() else ()
        made = {
            "tensorboard": lambda: to_tensorboard.reader(folder),
            "mlflow": lambda: to_mlflow.reader(self.name or folder.name),
        }
        return tuple(made[name]() for name in dict.fromkeys(asked))

    def _write(
        self, folder: Path, raw: nn.Module, notes: tuple[str, ...], job: Job, report: Report, data: DataSet
    ) -> None:
        """The model, the run folder, and the last words."""
        architecture = self._architecture(raw, data.x.shape[1:], len(data.classes))
        save_model(raw, folder / "model.safetensors", architecture=architecture)
        config = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NOT_CONFIG}
        story = runs.Story(
            name=self.name or f"{self.model}, {job.recipe.name}",
            model=runs.facts_of_model(str(self.model), raw, notes),
            config={"command": "train", **{k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}},
            command=runs.command_line(),
            device=runs.device_of(raw),
        )
        self.say(runs.write_training(folder, job, report, data, story))
        best = report.epochs[report.best_epoch - 1]
        for event in report.events:
            self.console.print(
                f"At step {event['step']} {event['why']}; the run went back to step {event['back_to']}.", soft_wrap=True
            )
        how = "by the bound" if surety(job) else f"under {brief(job.plan.selector(job.threat))}"
        self.console.print(
            f"Best epoch {report.best_epoch} of {len(report.epochs)}: "
            f"clean {best['clean']:.1%}, robust {best['robust']:.1%} "
            f"on validation rows {how}. "
            f"{report.seconds:.0f} s. Seed {self.seed}.",
            soft_wrap=True,
        )
        self.console.print(f"Model: {folder / 'model.safetensors'}  Report: {folder / 'report.html'}", soft_wrap=True)

    def _architecture(self, raw: nn.Module, shape: tuple[int, ...], classes: int) -> Architecture:
        name = self.arch or str(self.model)
        if name.startswith(("torchvision:", "timm:")):
            name = name.partition("@")[0]
        mean, std = self.mean or (), self.std or ()
        if not mean and isinstance(raw, Normalised):  # the library's own, or the file's
            mean, std = tuple(raw.mean.tolist()), tuple(raw.std.tolist())
        return Architecture(name=name, shape=tuple(shape), classes=classes, mean=mean, std=std)
