"""adamant attack: one attack, on one picture or on a data set."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from adamant import runs
from adamant.access import Access
from adamant.adversary import Attack as AnyAttack
from adamant.adversary import Composite, Outcome, Status
from adamant.calling import Caller, Settings, untouched
from adamant.cli import words
from adamant.cli.common import Source, at_least_one, seen
from adamant.data import DataSet, load_data
from adamant.engine import Interrupted, run
from adamant.errors import InputError
from adamant.files import make_folder, write_whole
from adamant.goals import Targeted, Untargeted
from adamant.models import as_logits
from adamant.random import Rng
from adamant.threats import Parametric, Projectable
from adamant.values import brief


@dataclass(frozen=True, kw_only=True)
class Attack(Source):
    """Attack one picture (--input, --label) or a data set (--data) and write the adversarial inputs."""

    input: str | None = None
    """One picture file."""
    label: int | None = None
    """Its class."""
    size: tuple[int, int] | None = None
    """Resize the picture to this height and width."""
    classes: int = 10
    """How many classes a model of the zoo has; only with --input."""
    target: int | None = None
    """Aim at this class; without it, any wrong class will do."""
    attack: str = "PGD(steps=40)"
    threat: str = "linf:8/255"
    """What may be changed; a norm without a budget (l2) asks a minimum-norm attack for the smallest change."""
    access: str = ""
    """What the attack sees: WhiteBox(), NES(n=100), ScoresOnly(); by default all that the model shows."""
    max_looks: int | None = None
    """At most so many forwards per row."""
    out: str = "runs/attack"
    """Where the results go."""

    def run(self) -> int:
        """Attack and write what came of it."""
        at_least_one(max_looks=self.max_looks, classes=self.classes)
        attack, threat = words.attack(self.attack), words.threat(self.threat, budget=False)
        if (self.input is None) == (self.data is None):
            raise InputError("What is to be attacked? Give either --input PICTURE --label CLASS, or --data.")
        self.check_device()
        folder = make_folder(Path(self.out))
        data = self._picture() if self.input else self.load_data()
        raw = self.load_model(data)
        device = runs.device_of(raw)
        model, notes = as_logits(raw, data.x[:16].to(device))
        goal = Untargeted(data.y) if self.target is None else Targeted(data.y, torch.full_like(data.y, self.target))
        access = seen(self.access, model)
        out, stopped = self._attacked(attack, model, data, goal, threat, access)
        data = data.take(torch.arange(len(out.status)))
        document: dict[str, Any] = {
            "attack": brief(attack), "threat": brief(threat), "access": brief(access), "seed": self.seed,
            "notes": [*notes, *([stopped] if stopped else [])],
            "rows": len(data.y), "statuses": {s.name.lower(): int((out.status == s).sum()) for s in Status},
            "success_rate": out.success_rate, "robust_accuracy": out.robust_accuracy,
            "median_size": float(out.size[out.broken].median()) if out.broken.any() else None,
            "forwards": int(out.forwards.sum()), "backwards": int(out.backwards.sum()), "checks": int(out.checks.sum()),
        }  # fmt: skip
        if self.input:
            document |= _write_picture(folder, model, data, out.x_adv, goal, threat)
        else:
            import safetensors.torch

            kept = {"row": data.rows, "adversarial": out.x_adv, "status": out.status, "size": out.size}
            write_whole(
                folder / "adversarial.safetensors", safetensors.torch.save({k: v.contiguous() for k, v in kept.items()})
            )
        document["provenance"] = runs.provenance(runs.command_line(), device)
        write_whole(folder / "result.json", json.dumps(document, indent=1) + "\n")
        self.say(document)
        self._tell(document, folder)
        if stopped:
            self.console.print(stopped, soft_wrap=True)
        return 130 if stopped else 0

    def _attacked(
        self,
        attack: AnyAttack | Composite,
        model: nn.Module,
        data: DataSet,
        goal: Untargeted | Targeted,
        threat: Projectable | Parametric,
        access: Access,
    ) -> tuple[Outcome, str]:
        """What became of the rows; where the run was stopped, of those that it came to, and what stopped it."""
        # One picture has no neighbours to be independent of, so it need not travel with fill-up copies.
        lanes = 1 if self.input else Settings().lanes
        rng = Rng.of(self.seed, data.rows)
        with self.progress("attack", "rows") as tell:
            settings = Settings(
                max_looks=self.max_looks, device=self.device, lanes=lanes, watch=lambda i, n: tell(i, n, "")
            )
            try:
                return run(attack, model, data.x, goal, threat, access=access, rng=rng, settings=settings), ""
            except Interrupted as stop:
                if stop.outcome is None:
                    raise
                short = int((stop.outcome.status == Status.OUT_OF_BUDGET).sum())
                came = f"{len(stop.outcome.status):,} of {len(data.y):,} rows were begun"
                came += f", and {short:,} of them ran out of queries" * bool(short)
                return stop.outcome, f"Stopped{f': {stop.why}' if stop.why else ''}; {came}."

    def _picture(self) -> DataSet:
        if not Path(str(self.input)).is_file():
            raise InputError(f"There is no picture {self.input}: give --input the path of one picture file.")
        if self.label is None:
            raise InputError(f"Which class does {self.input} show? Give --label.")
        data = load_data(str(self.input), label=self.label, size=self.size)
        if len(data.classes) < self.classes:
            data = replace(data, classes=tuple(str(i) for i in range(self.classes)))
        return data

    def _tell(self, d: dict[str, Any], folder: Path) -> None:
        say = partial(self.console.print, soft_wrap=True)
        broken = f"{d['success_rate']:.1%} of the rows that the model had right were broken"
        size = "" if d["median_size"] is None else f" The median size of the changes is {d['median_size']:.4g}."
        say(f"{d['attack']} under {d['threat']}, seed {self.seed}: {broken}.{size}")
        if "before" in d:
            before, after = (f"class {d[k]['class']} ({d[k]['confidence']:.1%})" for k in ("before", "after"))
            say(f"Before: {before}. After, as saved in 8 bits: {after}.")
            say(d["verdict"])
        say(f"{d['forwards']} forwards, {d['backwards']} backwards, {d['checks']} checks. Written to {folder}")


def _write_picture(
    folder: Path,
    model: nn.Module,
    data: DataSet,
    x_adv: Tensor,
    goal: Untargeted | Targeted,
    threat: Projectable | Parametric,
) -> dict[str, Any]:
    """Save as bytes, and judge what was saved: that is the picture that anybody will see."""
    saved = _to_bytes(x_adv[0])
    seen = torch.from_numpy(saved).permute(2, 0, 1).float().div(255)[None]
    device = runs.device_of(model)
    with untouched(model):
        caller = Caller(model, Settings(lanes=1))
        before, exact, after = (caller.alone(v.to(device)).cpu() for v in (data.x, x_adv, seen))
    _save(folder / "adversarial.png", saved)
    change = (seen - data.x)[0]
    largest = float(change.abs().max())
    factor = 0.5 / largest if largest else 1.0
    _save(folder / "perturbation.png", _to_bytes(0.5 + change * factor))
    inside, size = _measured(threat, torch.from_numpy(saved).permute(2, 0, 1)[None], (data.x * 255).round())
    fooled, was = bool(goal.reached(after)[0]), bool(goal.reached(exact)[0])
    if bool(goal.reached(before)[0]):
        verdict = "The model answers so before any attack: there is nothing to break, and the picture is unchanged."
    elif fooled and inside:
        verdict = f"The saved picture fools the model and stays inside the threat model (size {size:.6g})."
    elif fooled:
        verdict = (
            "The saved picture fools the model, but rounding to 8 bits carried it out of the threat model "
            f"(size {size:.6g}, {brief(threat)}): use a budget that is a multiple of 1/255."
        )
    elif was:
        verdict = (
            "Rounding to 8 bits UNDID the attack: the exact tensor fools the model, the saved picture does not. "
            "Try a larger budget: a change of less than half a grey level is rounded away."
        )
    else:
        verdict = "The attack did not succeed: the saved picture is its best try."
    return {
        "before": _prediction(before), "after_exact": _prediction(exact), "after": _prediction(after), "size": size,
        "saved_fools": fooled, "saved_inside": inside, "amplified": factor, "verdict": verdict,
    }  # fmt: skip


def _measured(threat: Projectable | Parametric, saved: Tensor, original: Tensor) -> tuple[bool, float]:
    """Whether a picture is inside the threat model, and its size, from whole grey levels (1 c h w).

    Under a threat with parameters rounding is no way out, and the size is the largest change of an entry.

    In float32, 51/255 apart can be a hair more than 0.2; here it is 0.2, as a person counts.
    """
    z, x = saved.double() / 255, original.double() / 255
    if isinstance(threat, Parametric):
        return True, float((z - x).abs().max())
    eps = getattr(threat, "eps", None)
    allowed = threat.at(eps * (1 + 1e-9)) if isinstance(eps, (int, float)) else threat
    return bool(allowed.contains(z, x)[0]), float(threat.size(z, x)[0])


def _prediction(logits: Tensor) -> dict[str, Any]:
    top = logits.double().softmax(1).max(1)
    return {"class": int(top.indices[0]), "confidence": float(top.values[0])}


def _to_bytes(x: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _save(path: Path, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path)
