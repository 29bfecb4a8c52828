"""The few functions of the front door."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adamant import evaluation, runs, training
from adamant._types import Inputs, Labels
from adamant.access import Access, plain
from adamant.adversary import Attack, Composite, Outcome
from adamant.batch import PerRow
from adamant.calling import Settings
from adamant.data import DataSet, Mix, Stream, split
from adamant.engine import run
from adamant.errors import InputError
from adamant.goals import Targeted, Untargeted
from adamant.models import as_logits, module_of
from adamant.random import Rng
from adamant.threats import Parametric, Projectable


def attack(
    attack: Attack | Composite,
    model: Any,
    x: Inputs,
    y: Labels,
    threat: Projectable | Parametric,
    *,
    target: Labels | None = None,
    access: Access | None = None,
    seed: int = 0,
    settings: Settings | None = None,
) -> Outcome:
    """Attack each row of x (n, *d) with labels y (n,), untargeted, or toward `target` (n,).

    The model is a torch module that returns logits, or a model of another framework (see `load_model`).
    Raises InputError, ModelError or AccessError, each with a sentence that says what to do.
    """
    y = _labels("y", y, len(x))
    goal = Untargeted(y) if target is None else Targeted(y, _labels("target", target, len(x)))
    rng = Rng.of(seed, len(x))
    return run(attack, module_of(model), x, goal, threat, access=access, rng=rng, settings=settings)


def audit(
    model: Any,
    data: DataSet | Stream | tuple[Tensor, Tensor],
    threat: Projectable,
    *,
    suite: evaluation.Suite | None = None,
    access: Access | None = None,
    seed: int = 0,
    settings: Settings | None = None,
    out: str | Path | None = None,
) -> evaluation.Audit:
    """Find out how many rows still stand after every attack of the suite, and write a report where `out` is given.

    Without an access it is the strongest that the model allows, and without a suite the one for that access:
    `standard_v1`, or `scores_v1` and `labels_v1` for models that show no more.
    """
    held = _data_set(*data) if isinstance(data, tuple) else data
    name, model = type(model).__name__, module_of(model)
    if not len(held.y):
        raise InputError("The data hold no rows: nothing can be audited.")
    some = held.x[:16]
    logits, notes = as_logits(model, some.to(next((p.device for p in model.parameters()), some.device)))
    access = access or plain(logits)
    order = evaluation.Order(
        threat=threat,
        suite=suite or evaluation.default_suite(access),
        access=access,
        seed=seed,
        settings=settings or Settings(),
    )
    identity = evaluation.identify(order, logits, held)
    found = evaluation.audit(logits, held, order, folder=Path(out) if out else None, identity=identity)
    if out:
        story = runs.Story(
            name=name,
            model=runs.facts_of_model(name, model, notes),
            config=_config(order, model, held),
            command=runs.command_line(),
            device=runs.device_of(model),
            identity=identity,
        )
        runs.write_audit(Path(out), found, held, story)
    return found


def _config(order: evaluation.Order, model: nn.Module, data: DataSet | Stream) -> dict[str, Any]:
    """The settings as `adamant audit --config` reads them, and what can be said of a model and data in memory."""
    kind, settings, plain = type(model), order.settings, Settings()
    asked = {"threat": repr(order.threat), "suite": order.suite.name, "access": repr(order.access)}
    asked |= {"seed": order.seed}
    words = ("max_looks", "votes", "device", "channels_last", "autocast")
    held = {k: getattr(settings, k) for k in words if getattr(settings, k) != getattr(plain, k)}
    asked |= {k: v for k, v in held.items() if not isinstance(v, PerRow)}
    facts = {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "parameters": runs.facts_of_model("", model)["parameters"],
        "data": data.name,
        "split": data.split,
        "rows": len(data.y),
    }
    return {"command": "am.audit", **asked, "python": facts}


def train(
    model: Any,
    data: DataSet | Mix,
    recipe: training.Recipe,
    threat: Projectable,
    *,
    validation: DataSet | None = None,
    plan: training.Plan | None = None,
    seed: int = 0,
) -> nn.Module:
    """A hardened copy of the model; the one given stays as it is. Without validation data, a tenth is set aside.

    Of a model of another framework it is a torch module whose `receive()` gives that framework's object, hardened, and
    which `save_model` writes as a file of that framework. Of a `Mix`, the generated rows take their share of every
    batch; the tenth comes from the real ones.
    """
    plan, extra = plan or training.Plan(), None
    if isinstance(data, Mix):
        data.check()
        plan, extra, data = replace(plan, extra=data.share), data.generated, data.real
    if validation is None:
        data, validation = split(data, 0.1, seed)
    hardened = copy.deepcopy(module_of(model))
    job = training.Job(
        model=hardened,
        data=data,
        validation=validation,
        threat=threat,
        recipe=recipe,
        plan=plan,
        extra=extra,
        seed=seed,
    )
    training.fit(job)
    return hardened


def _labels(name: str, values: Any, rows: int) -> Tensor:
    labels = torch.as_tensor(values)
    if labels.is_floating_point() or labels.ndim != 1 or len(labels) != rows:
        raise InputError(
            f"{name} must hold one class number per row, {rows} of them; got {tuple(labels.shape)} {labels.dtype}."
        )
    return labels.long()


def _data_set(x: Tensor, y: Tensor) -> DataSet:
    y = _labels("y", y, len(x))
    classes = tuple(str(i) for i in range(int(y.max()) + 1 if len(y) else 0))
    return DataSet(x=x, y=y, classes=classes, name="tensors", split="given", rows=torch.arange(len(y)), notes=())
