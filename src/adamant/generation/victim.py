"""The model that a game attacks: whether it can be attacked, what it answers, and how often it errs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from adamant._types import Inputs, Labels, Logits, Scores
from adamant.access import Access, View
from adamant.batch import PerRow
from adamant.calling import Caller, Settings, device_of, untouched, unwrapped
from adamant.errors import InputError
from adamant.generation.base import Material
from adamant.goals import Goal, Targeted, Untargeted
from adamant.losses import Loss, Margin
from adamant.models import as_logits
from adamant.random import Rng
from adamant.threats import Parametric, Projectable

_AT_ONCE = 256


def check_victim(material: Material, toward: int | None = None) -> None:
    """Raise InputError where there is no model to attack, no set to attack it in, no labels, or no logits."""
    model, threat = victim(material)
    if isinstance(threat, Parametric):
        raise InputError(f"{type(threat).__name__} changes parameters of the input: learn to attack within a norm.")
    eps = getattr(threat, "eps", 0.0)
    if isinstance(eps, PerRow) or not math.isfinite(eps) or isinstance(getattr(threat, "mask", None), PerRow):
        raise InputError(f"A generator learns within one finite budget for all rows, not within {threat!r}.")
    if toward is not None and not 0 <= toward < material.classes:
        raise InputError(f"The class to be taken for is {toward}: give one of 0 to {material.classes - 1}.")
    for rows in (material.data, material.validation):
        threat.check(rows.x)
        if len(rows.y) and int(rows.y.min()) < 0:
            raise InputError("Some rows have no label (-1): a model that is to err needs to know what would be right.")
    few = material.data.x[:8].to(device_of(model, material.data.x))
    if as_logits(model, few)[0] is not model:
        raise InputError(
            "The model to attack does not return logits: hand over what adamant.models.as_logits makes of it, for the "
            "slope of a probability vanishes where the model is sure."
        )
    with untouched(model), torch.no_grad():
        classes = Caller(model, Settings(lanes=1))(few).shape[1]
    if classes != material.classes:
        raise InputError(f"The model to attack knows {classes} classes and the data {material.classes}.")


def victim(material: Material) -> tuple[nn.Module, Projectable]:
    """The model and the set; raises InputError where either is missing."""
    if material.target is None or material.threat is None:
        missing = "model" if material.target is None else "threat model"
        raise InputError(
            f"A learned attack is learned against a model within a threat model: there is no {missing}: "
            "give both (--target and --threat, target= and threat= of Material)."
        )
    return unwrapped(material.target), material.threat


def ask(model: nn.Module, x: Inputs) -> Logits:
    """The model's logits, checked to be that; whoever calls holds it `untouched`."""
    return Caller(model, Settings(lanes=1))(x)


def answers(material: Material, x: Inputs, access: Access) -> Logits:
    """What the attacked model shows of each row through this access."""
    model, threat = victim(material)
    view = View(
        lambda z: ask(model, z), lambda logits: logits[:, 0], threat.clip, threat.free, lambda: Rng.of(0, len(x))
    )
    with untouched(model):
        return access.look(view, x, grad=False).logits


def errs(material: Material, toward: int | None, change: Callable[[Inputs], Inputs]) -> tuple[float, float]:
    """The share of validation rows that the model gets wrong (or takes for `toward`) once changed, and the mean L2."""
    model, _ = victim(material)
    held, device = material.validation, device_of(model, material.validation.x)
    wrong, length = 0, 0.0
    with untouched(model), torch.no_grad():
        for rows in torch.arange(len(held.y)).split(_AT_ONCE):
            x, y = held.x[rows].to(device), held.y[rows].to(device)
            z = change(x)
            wrong += int(goal_of(y, toward).reached(ask(model, z)).sum())
            length += float((z - x).flatten(1).norm(dim=1).sum())
    return wrong / len(held.y), length / len(held.y)


def leave(logits: Logits, goal: Goal, confidence: float, loss: Loss = Margin()) -> Scores:
    """max(Z_y - max_{j != y} Z_j, -confidence): how far the label leads, down to a defeat that is clear enough.

    Carlini & Wagner, 2017, arXiv:1608.04644. With a target, how far the best other class leads it.
    """
    return (-loss(logits, goal)).clamp_min(-confidence)


def goal_of(y: Labels, toward: int | None) -> Goal:
    """Any wrong class, or one for all."""
    return Untargeted(y) if toward is None else Targeted(y, torch.full_like(y, toward))
