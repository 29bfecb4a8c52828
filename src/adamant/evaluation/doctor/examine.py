"""The examination: everything that a model and a few hundred rows can tell before an audit is believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from adamant.access import Access, Sight, plain, sight
from adamant.adversary import check_sight
from adamant.batch import PerRow, take
from adamant.calling import Remembers, Settings, untouched, unwrapped
from adamant.errors import InputError, ModelError
from adamant.evaluation.doctor import basics, gradients, sheet, surrogate, walks
from adamant.evaluation.doctor.finding import Examination, Finding, Verdict
from adamant.evaluation.doctor.patient import Labelled, Passes, Patient, ask, bare, place
from adamant.models import as_logits
from adamant.random import Rng, permutation, sealed
from adamant.threats import Projectable

_NAMES = {
    "D1": "mode", "D2": "batch", "D3": "randomness", "D4": "graph", "D5": "zero gradients", "D6": "wrong gradients",
    "D7": "rough loss", "D8": "logits", "D9": "scale", "D10": "range", "D11": "clean accuracy", "D12": "labels",
    "D14": "noise", "D15": "one step", "D16": "steps", "D17": "budgets", "D18": "no budget", "D19": "transfer",
    "D21": "loss curve", "D22": "numbers", "D23": "state", "D24": "optimisation", "D27": "seeds", "D30": "rejection",
}  # fmt: skip


_BLIND = "this model shows no gradient"


def examine(
    model: Any,
    data: Labelled,
    threat: Projectable,
    *,
    seed: int = 0,
    rows: int = 256,
    settings: Settings | None = None,
    access: Access | None = None,
    classes: int | None = None,
    claimed: float | None = None,
) -> Examination:
    """Run every diagnostic that needs the model and at most `rows` rows of the data, drawn by the seed.

    `model` is the person's own, or already wrapped by `as_logits`; `classes` is how many there are (those of the data),
    `claimed` the clean accuracy that is claimed for the model, 0 to 1. The model is left as it was.
    Raises InputError where there are no rows, ModelError for a model that raises.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"The model is a {type(model).__name__}, not a torch module: wrap it with adamant.load_model.")
    if not len(data.x):
        raise InputError("The data hold no rows: nothing can be examined.")
    if rows < 1:
        raise InputError(f"rows is {rows}: give a whole number from 1 on.")
    eps = getattr(threat, "eps", None)
    if isinstance(eps, PerRow) and len(eps.values) != len(data.x):
        raise InputError(f"There are {len(eps.values)} budgets for {len(data.x)} rows.")
    access = access or plain(model)
    check_sight(model, access)
    chosen = permutation(len(data.x), seed, "doctor")[:rows].sort().values
    return _Round(model, data, threat, seed, chosen, settings or Settings(), access).all(
        classes if classes is not None else len(data.classes) or None, claimed
    )


class _Round:
    """One examination: what is known so far."""

    def __init__(
        self, model: nn.Module, data: Labelled, threat: Projectable, seed: int, chosen: Tensor, settings: Settings,
        access: Access,
    ) -> None:  # fmt: skip
        self.given, self.raw, self.settings, self.access, self.seed = model, bare(model), settings, access, seed
        self.passes, self.found = Passes(), dict[str, Finding]()
        fits = data.y.ndim > 0 and len(data.y) == len(data.x)
        self.x, self.y = data.x[chosen].detach(), data.y[chosen].detach() if fits else data.y.detach()
        self.there = place(model, settings, self.x)
        self.ids, self.threat = data.rows[chosen], take(threat, chosen)

    def all(self, classes: int | None, claimed: float | None) -> Examination:
        """Every diagnostic, in an order in which each may lean on those before it."""
        self.add(basics.training_mode(self.raw))
        self.add(sheet.inputs(self.x, self.threat))
        x = self.x.float() / (255 if self.x.max() > 1 else 1) if not self.x.is_floating_point() else self.x
        x = x.to(self.there)
        try:
            self._state(x[:16])
            with untouched(unwrapped(self.given), seed=self.seed):
                self._asked(x, classes, claimed)
        except _Enough as enough:
            for name in _NAMES:
                self.found.setdefault(name, _skipped(name, str(enough)))
        findings = tuple(sorted(self.found.values(), key=lambda f: int(f.id[1:])))
        return Examination(
            findings=findings, rows=len(x), forwards=self.passes.forwards, backwards=self.passes.backwards
        )

    def add(self, *findings: Finding) -> None:
        """Enter in the books."""
        self.found |= {f.id: f for f in findings}

    def _state(self, x: Tensor) -> None:
        self.passes.forwards += 2 * len(x)
        for finding in basics.state(self.raw, x, lambda z: _plain(self.raw, z)):
            self.add(finding)

    def _asked(self, x: Tensor, classes: int | None, claimed: float | None) -> None:
        model = self._logits(x)
        try:
            clean = ask(model, self.settings, self.passes, x)
        except ModelError:
            if self.found["D24"].verdict == Verdict.PASS:
                raise
            raise _Enough("the model runs a backward pass in forward, and cannot be asked without one (D24)") from None
        self.add(sheet.numbers(clean))
        fine = clean.isfinite().all(1).cpu()
        if not bool(fine.any()):
            raise _Enough("the model returns no numbers (D22)")
        x, clean, self.ids = x[fine], clean[fine], self.ids[fine]
        y = self.y[fine] if self.y.ndim and len(self.y) == len(fine) else self.y
        shows = sight(model) == Sight.GRADIENT
        self.add(basics.outputs(self.raw, model, x[:64]) if shows else _skipped("D8", _BLIND), sheet.labels(y, clean))
        self.add(sheet.rejection(clean.shape[1], classes, y))
        usable = sheet.usable_labels(y, len(x), clean.shape[1])
        known = usable is not None
        right = int((clean.argmax(1).cpu() == usable).sum()) if known else 0
        self.add(sheet.claim(right, len(x), claimed) if known else _skipped("D11", "the labels are of no use (D12)"))
        judged = usable if usable is not None and self.found["D12"].verdict == Verdict.PASS else clean.argmax(1)
        patient = Patient(
            model=model, settings=self.settings, x=x, y=judged.to(self.there), rng=Rng.of(self.seed, self.ids)
            .fold("doctor").to(self.there), threat=take(self.threat, fine), clean=clean, passes=self.passes,
        )  # fmt: skip
        self._without_gradients(patient)
        self._with_gradients(patient)

    def _logits(self, x: Tensor) -> nn.Module:
        """What is attacked: the model itself, or what makes logits of its answer; judged on rows with numbers."""
        if self.given is not self.raw and unwrapped(self.given) is not self.raw:
            return self.given
        with torch.no_grad(), sealed(0):
            try:
                parts = [basics.logits_of(_plain(self.raw, z))[0] for z in x.split(self.settings.batch_size or 256)]
            except ModelError:
                if self.found["D24"].verdict == Verdict.PASS:
                    raise
                return self.raw
        fine = torch.ones(len(x), dtype=torch.bool)
        if all(isinstance(part, Tensor) and part.ndim == 2 for part in parts):
            fine = torch.cat(parts).isfinite().all(1)
        self.passes.forwards += len(x)
        return as_logits(self.raw, x[fine][:16])[0] if bool(fine.any()) else self.raw

    def _without_gradients(self, p: Patient) -> None:
        if any(isinstance(m, Remembers) for m in unwrapped(p.model).modules()):
            why = "what was asked before is answered from memory"
            self.add(_skipped("D2", why), _skipped("D3", why))
            return
        self.add(basics.coupling(p), basics.randomness(p, self.access))

    def _with_gradients(self, p: Patient) -> None:
        names = ("D4", "D5", "D6", "D7", "D14", "D15", "D16", "D17", "D18", "D19", "D21", "D27")
        if self.access.gives < Sight.GRADIENT:
            blind = sight(p.model) < Sight.GRADIENT
            why = _BLIND if blind else f"{type(self.access).__name__} sees no gradient"
            self.add(*(_skipped(n, why) for n in names))
            self.add(_skipped("D9", why) if blind else basics.scale(p, None))
            return
        self.add(gradients.graph(p))
        through = self.found["D4"].verdict == Verdict.PASS
        self.add(basics.scale(p, p.slope if through else None))
        p = walks.standing(p, p.right)
        if not len(p.x):
            raise _Enough("no row is right")
        why = self._outside(p)
        self.add(_skipped("D7", why) if why else gradients.rough(p))
        if not through:
            self.add(*(_skipped(n, "no gradient reaches the input (D4)") for n in names[1:] if n not in ("D7", "D19")))
            self.add(_skipped("D19", why) if why else surrogate.transferred(p, None))
            return
        self.add(gradients.zeros(p, None if why else gradients.begin(p, "D5")))
        if why:
            self.add(*(_skipped(n, why) for n in names if n not in self.found))
            return
        why = gradients.fits(p)
        self.add(_skipped("D6", why) if why else gradients.differences(p, gradients.begin(p, "D6")))
        self._attacked(p)

    def _outside(self, p: Patient) -> str:
        """Why no attack can be tried here."""
        if not hasattr(p.threat, "project") or not hasattr(p.threat, "clip"):
            return f"{type(p.threat).__name__} changes parameters of the picture"
        try:
            p.threat.check(p.x)
        except InputError:
            return "the inputs are not in the box of the threat (D10)"
        return "" if bool(p.threat.budget(p.x).isfinite().all()) else "the threat has no budget"

    def _attacked(self, p: Patient) -> None:
        walked = walks.walk(p, p.threat, gradients.begin(p, "walk"), walks.STEPS)
        checks: tuple[Callable[[Patient, walks.Course], Finding], ...] = (
            walks.noise, walks.one_step, walks.steps, walks.optimised, walks.budgets, walks.seeds,
            surrogate.transferred,
        )  # fmt: skip
        self.add(*(check(p, walked) for check in checks), walks.unbounded(p))


class _Enough(Exception):  # noqa: N818
    """Nothing more can be asked, and why."""


def _plain(model: nn.Module, z: Tensor) -> object:
    try:
        return model(z.clone())
    except Exception as error:
        line = (str(error).strip().splitlines() or ["no message"])[0]
        raise ModelError(
            f"The model raised {type(error).__name__} on an input of shape {tuple(z.shape)} and type {z.dtype}: "
            f"{line} Check that the data have the shape and the type that the model was made for."
        ) from error


def _skipped(name: str, why: str) -> Finding:
    return Finding(id=name, name=_NAMES[name], verdict=Verdict.SKIPPED, number=None, measured=why)
