"""Transfer: what fools one model, does it fool another? Crafted on each source, judged on each target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from adamant._types import Inputs
from adamant.access import Access, plain
from adamant.adversary import Attack, Composite, check, check_rows
from adamant.batch import on, take
from adamant.calling import Caller, Settings, device_of, untouched, unwrapped
from adamant.engine import perturb
from adamant.errors import InputError, ModelError
from adamant.evaluation.counting import share
from adamant.goals import Goal
from adamant.random import Rng
from adamant.threats import Projectable


@final
@dataclass(frozen=True)
class Transfer:
    """How often examples made on a source (first key) fool a target (second key), among the rows it had right."""

    rate: dict[str, dict[str, dict[str, Any]]]  # each a share with its 95 % interval
    clean: dict[str, dict[str, Any]]  # rows where each target is not yet where the goal wants it
    x_adv: dict[str, Tensor]


def transfer(
    attack: Attack,
    sources: Mapping[str, nn.Module],
    targets: Mapping[str, nn.Module],
    x: Inputs,
    goal: Goal,
    threat: Projectable,
    *,
    access: Access | None = None,
    rng: Rng | None = None,
    batch_size: int = 128,
) -> Transfer:
    """Craft the attack's last point on each source, without asking a target anything, and judge it on every target.

    `access` says how the gradient of the source is seen: `Varied(...)` makes it carry further. An example outside of
    the threat model counts as a failure. Raises InputError for a composite, whose parts stop at what fools the source.
    """
    if isinstance(attack, Composite):
        raise InputError(
            f"{type(attack).__name__} stops at what fools the source; transfer takes the last point of one attack."
        )
    if not sources or not targets:
        raise InputError("Transfer needs at least one model to attack and one to judge.")
    rng = rng or Rng.of(0, len(x))
    for model in sources.values():
        check(attack, model, x, threat, access or plain(model))
    for model in targets.values():
        check_rows(model, x)
    right: dict[str, Tensor] = {}
    for name, model in targets.items():
        logits = _logits(model, x, batch_size)
        goal.check(logits.shape[1])
        if bool(logits.isnan().any()):
            raise ModelError(f"The model {name} returns NaN on a clean input: nothing can be judged on it.")
        right[name] = ~goal.reached(logits)
    made: dict[str, Tensor] = {}
    rate: dict[str, dict[str, dict[str, Any]]] = {}
    for source, model in sources.items():
        made[source] = _craft(attack, model, x, goal, threat, access, rng, batch_size)
        inside = threat.contains(made[source], x)
        rate[source] = {}
        for name, target in targets.items():
            fooled = goal.reached(_logits(target, made[source], batch_size)) & inside & right[name]
            if not bool(right[name].any()):
                raise InputError(f"The model {name} has no row right: nothing can be taken from it.")
            rate[source][name] = share(int(fooled.sum()), int(right[name].sum()))
    return Transfer(rate, {name: share(int(r.sum()), len(x)) for name, r in right.items()}, made)


def _craft(
    attack: Attack,
    model: nn.Module,
    x: Inputs,
    goal: Goal,
    threat: Projectable,
    access: Access | None,
    rng: Rng,
    size: int,
) -> Tensor:
    raw, parts = unwrapped(model), list[Tensor]()
    device = device_of(raw, x)
    with untouched(raw, seed=int(rng.key[0])):
        for rows in torch.arange(len(x)).split(size):
            part, their, keys = on(x[rows], device), on(take(goal, rows), device), on(take(rng, rows), device)
            parts.append(perturb(attack, raw, part, their, take(threat, rows), rng=keys, access=access).to(x.device))
    return torch.cat(parts)


def _logits(model: nn.Module, x: Tensor, size: int) -> Tensor:
    raw = unwrapped(model)
    with untouched(raw), torch.no_grad():
        logits = torch.cat([Caller(raw, Settings())(part.to(device_of(raw, x))) for part in x.split(size)])
    return logits.to(x.device)
