"""adamant demo: the whole story on embedded data, from two trainings to one report."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from adamant import runs
from adamant.attacks import PGD
from adamant.cli.audit import table
from adamant.cli.common import Common
from adamant.data import DataSet, load_data
from adamant.evaluation import STANDARD, Order, audit
from adamant.files import make_folder
from adamant.models import Architecture, build, save_model
from adamant.report import write_page
from adamant.runtime.knobs import Ramp
from adamant.threats import Linf
from adamant.training import EMA, Adam, Job, Plan, Recipe, fit, recipes

NETWORK = "cnn"
# Where the picture is honest, chosen on validation rows: at 0.1 the ordinary model still has half of the digits right,
# at 0.2 nothing of this size holds most of them. The curve in the report shows every budget from 0 to twice this one.
THREAT = Linf(0.15)


def stories() -> list[tuple[str, str, Recipe, Plan]]:
    """The two models of the demo: folder, name, recipe, plan."""
    plan = Plan(epochs=60, batch_size=64, optimizer=Adam(rate=3e-3))
    mean = EMA(decay=0.99)
    hardened = recipes.madry(attack=PGD(steps=5, rate=0.4), average=mean, eps=Ramp())
    return [
        ("ordinary", "ordinary training", recipes.standard(average=mean), plan),
        ("adversarial", "adversarial training", hardened, plan),
    ]


@dataclass(frozen=True, kw_only=True)
class Demo(Common):
    """Train a model the ordinary way and one adversarially, audit both, and show what it took."""

    out: str = "runs/demo"
    """The folder of the demo."""
    epochs: int | None = None
    """Fewer epochs than the demo's own, to try it out."""

    def run(self) -> int:
        """Tell the story."""
        began = time.monotonic()
        self.check_device()
        torch.set_num_threads(1)  # the networks are so small that threads would cost more than they give
        folder = make_folder(Path(self.out))
        train, validation, test = (load_data("digits", split=s) for s in ("train", "val", "test"))
        self.console.print(
            f"{len(train)} handwritten digits to learn from, {len(validation)} to choose the best epoch by, "
            f"{len(test)} to audit. The adversary may change every pixel by {THREAT.eps:g} of the grey scale."
        )
        results, pages = [], []
        for short, name, recipe, plan in stories():
            results.append(self._one(folder / short, name, recipe, plan, train, validation, test))
            pages.append(folder / short / "audit")
        pages += [folder / short / "training" for short, *_ in stories()]
        page = write_page(pages, folder / "report.html", title="Two models, one attack: the adamant demo")
        seconds = time.monotonic() - began
        self.say({"audits": results, "report": str(page), "seconds": round(seconds, 1)})
        self.console.print(table(results))
        a, b = results
        self.console.print(
            f"Attacked, the ordinary model falls from {a['clean']['accuracy']:.1%} to {a['robust']['accuracy']:.1%}; "
            f"the adversarially trained one from {b['clean']['accuracy']:.1%} to {b['robust']['accuracy']:.1%}."
        )
        self.console.print(f"Seed {self.seed}. {seconds:.0f} s in all. Report: {page}")
        return 0

    def _one(
        self, folder: Path, name: str, recipe: Recipe, plan: Plan, train: DataSet, validation: DataSet, test: DataSet
    ) -> dict[str, Any]:
        shape, classes = tuple(train.x.shape[1:]), len(train.classes)
        model = build(NETWORK, shape=shape, classes=classes, seed=self.seed)
        if self.device:
            model = model.to(self.device)
        if self.epochs:
            plan = replace(plan, epochs=self.epochs)
        story = runs.Story(
            name=name,
            model=runs.facts_of_model(f"zoo:{NETWORK}", model),
            config={"command": "demo", "seed": self.seed},
            command=runs.command_line(),
            device=runs.device_of(model),
        )
        with self.progress(name, "steps") as tell:
            job = Job(
                model=model,
                data=train,
                validation=validation,
                threat=THREAT,
                recipe=recipe,
                plan=plan,
                seed=self.seed,
                watch=tell,
            )
            report = fit(job)
        runs.write_training(folder / "training", job, report, train, story)
        save_model(
            model,
            folder / "model.safetensors",
            architecture=Architecture(name=f"zoo:{NETWORK}", shape=shape, classes=classes),
        )
        with self.progress(f"audit of {name}", "rows") as tell:
            found = audit(model, test, Order(threat=THREAT, suite=STANDARD, seed=self.seed, watch=tell))
        return runs.write_audit(folder / "audit", found, test, story)
