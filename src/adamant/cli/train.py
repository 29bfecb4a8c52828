"""adamant train: make a model that is harder to change the mind of."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from adamant import runs
from adamant.cli import words
from adamant.cli.common import Source
from adamant.data import load_data
from adamant.errors import InputError
from adamant.files import make_folder
from adamant.models import Architecture, as_logits, save_model
from adamant.training import Job, Plan, fit
from adamant.values import brief


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
    l1: float = 0.0
    """Times the sum of absolute weights, added to the loss."""
    l2: float = 0.0
    """Weight decay."""
    dropout: float = 0.0
    """Before the last linear layer."""
    patience: int | None = None
    """Stop after so many epochs without a better checkpoint."""
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
        threat, recipe = words.threat(self.threat), words.recipe(self.recipe)
        plan = Plan(
            epochs=self.epochs, batch_size=self.batch_size, optimizer=words.optimizer(self.optimizer),
            l1=self.l1, l2=self.l2, dropout=self.dropout, patience=self.patience,
        )  # fmt: skip
        folder = make_folder(Path(self.out))
        raw, data = self.load()
        validation = load_data(str(self.data), split="val", data_dir=self.data_dir)
        model, notes = as_logits(raw, data.x[:16].to(runs.device_of(raw)))
        self.console.print(recipe.explain())
        with self.progress("train", "steps") as tell:
            job = Job(
                model=model, data=data, validation=validation, threat=threat, recipe=recipe, plan=plan,
                seed=self.seed, folder=folder, resume=self.resume, watch=tell,
            )  # fmt: skip
            report = fit(job)
        save_model(
            raw, folder / "model.safetensors", architecture=self._architecture(data.x.shape[1:], len(data.classes))
        )
        config = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in ("out", "resume", "json", "quiet", "name")
        }
        story = runs.Story(
            name=self.name or f"{self.model}, {recipe.name}",
            model=runs.facts_of_model(str(self.model), raw, notes),
            config={"command": "train", **{k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}},
            command=runs.command_line(),
            device=runs.device_of(raw),
        )
        result = runs.write_training(folder, job, report, data, story)
        self.say(result)
        best = report.epochs[report.best_epoch - 1]
        self.console.print(
            f"Best epoch {report.best_epoch} of {len(report.epochs)}: "
            f"clean {best['clean']:.1%}, robust {best['robust']:.1%} "
            f"on validation rows under {brief(plan.selector(threat))}. {report.seconds:.0f} s. Seed {self.seed}."
        )
        self.console.print(f"Model: {folder / 'model.safetensors'}  Report: {folder / 'report.html'}")
        return 0

    def _architecture(self, shape: tuple[int, ...], classes: int) -> Architecture:
        name = self.arch or str(self.model)
        return Architecture(name=name, shape=tuple(shape), classes=classes, mean=self.mean or (), std=self.std or ())
