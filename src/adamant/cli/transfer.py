"""adamant transfer: what fools one model, does it fool another?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table
from torch import nn

from adamant import runs
from adamant.adversary import Composite
from adamant.cli import words
from adamant.cli.common import Data, at_least_one
from adamant.data import DataSet
from adamant.errors import InputError
from adamant.evaluation import transfer
from adamant.files import make_folder, write_whole
from adamant.goals import Untargeted
from adamant.models import as_logits, load_model
from adamant.random import Rng
from adamant.values import brief


@dataclass(frozen=True, kw_only=True)
class Transfer(Data):
    """Make adversarial examples on each model and judge them on every one of them."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Two or more models, each written as for adamant audit."""
    arch: tuple[str, ...] = ()
    """For files of weights alone: one for all, or one for each model."""
    attack: str = "MIFGSM(steps=20)"
    """Its last point is taken, as nobody asks the target on the way."""
    threat: str = "linf:8/255"
    access: str = ""
    """What is seen of a source, by default all that it shows; Varied((Resize(), Scale(5)), n=5, blur=7) makes examples
    that carry further."""
    out: str = "runs/transfer"
    """Where the results go."""

    def run(self) -> int:
        """Craft, judge, print the matrix."""
        at_least_one(limit=self.limit)
        attack, threat = words.attack(self.attack), words.threat(self.threat)
        access = words.sight(self.access) if self.access else None
        if isinstance(attack, Composite):
            raise InputError(f"Transfer takes the last point of one attack, and {brief(attack)} is made of several.")
        self.check_device()
        folder = make_folder(Path(self.out))
        data = self.load_data()
        models = self._models(data)
        found = transfer(
            attack, models, models, data.x, Untargeted(data.y), threat, access=access, rng=Rng.of(self.seed, data.rows)
        )
        document: dict[str, Any] = {
            "attack": brief(attack), "threat": brief(threat), "seed": self.seed,
            "access": brief(access) if access else "all that each model shows",
            "rows": len(data.y), "clean": found.clean, "rate": found.rate,
            "provenance": runs.provenance(runs.command_line(), runs.device_of(next(iter(models.values())))),
        }  # fmt: skip
        write_whole(folder / "result.json", json.dumps(document, indent=1) + "\n")
        self.say(document)
        table = Table(title=f"{brief(attack)} under {brief(threat)}: share of rows that were right and are fooled")
        for column in ("made on \\ judged on", *models):
            table.add_column(column)
        for source, by in found.rate.items():
            table.add_row(source, *(f"{by[target]['accuracy']:.1%}" for target in models))
        self.console.print(table)
        self.console.print(f"With intervals in {folder / 'result.json'}", soft_wrap=True)
        return 0

    def _models(self, data: DataSet) -> dict[str, nn.Module]:
        if len(self.models) < 2:
            raise InputError("Transfer needs at least two models: name each, one after another.")
        if len(self.arch) not in (0, 1, len(self.models)):
            raise InputError(
                f"--arch holds {len(self.arch)} names for {len(self.models)} models: give one, or one each."
            )
        archs = self.arch * len(self.models) if len(self.arch) == 1 else self.arch or (None,) * len(self.models)
        made: dict[str, nn.Module] = {}
        for text, arch in zip(self.models, archs, strict=True):
            model = load_model(text, arch=arch, shape=tuple(data.x.shape[1:]), classes=len(data.classes))
            model = model.to(self.device) if self.device else model
            name = Path(text).stem if Path(text).suffix else text
            while name in made:
                name += "'"
            made[name] = as_logits(model, data.x[:16].to(runs.device_of(model)))[0]
        return made
