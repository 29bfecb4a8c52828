"""Checkpoints: one safetensors file with everything a run needs to go on bit for bit, and no random state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from adamant.errors import RunError
from adamant.files import write_whole

FORMAT = "adamant.checkpoint/3"
Optimizers = Sequence[torch.optim.Optimizer]


@dataclass(frozen=True)
class State:
    """Weights, optimiser and memory at one moment, as tensors by name, with the facts beside them."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


@dataclass
class Progress:
    """Where a run stands; the one mutable record of training."""

    step: int = 0
    seconds: float = 0.0
    epochs: list[dict[str, Any]] = field(default_factory=lambda: [])
    best_epoch: int = 0
    score: list[float] = field(default_factory=lambda: [])  # of the best epoch; larger is better
    probed: float = 0.0  # the best that a probe saw
    best: dict[str, Tensor] = field(default_factory=lambda: {})
    mean: dict[str, Tensor] = field(default_factory=lambda: {})  # averaged weights, of all networks or of some
    memory: dict[str, Tensor] = field(default_factory=lambda: {})
    # What a return to `good` does not undo:
    rate: float = 1.0  # times the learning rate; halved when the loss was no number
    strength: int = 0  # how often a probe sent the run back, to go on with more care
    events: list[dict[str, Any]] = field(default_factory=lambda: [])
    good: State | None = None  # where the run was well


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each as it is now."""
    return {name: value.detach().clone() for name, value in tensors.items()}


def pack(model: nn.Module, optimizers: Optimizers, progress: Progress) -> State:
    """A copy of all that going on from here needs."""
    states = [optimizer.state_dict()["state"] for optimizer in optimizers]
    groups: dict[str, Mapping[str, Tensor]] = {
        "model": model.state_dict(),
        "best": progress.best,
        "mean": progress.mean,
        "memory": progress.memory,
        "optimizer": {
            f"{n}.{i}.{k}": v
            for n, state in enumerate(states)
            for i, held in state.items()
            for k, v in held.items()
            if isinstance(v, Tensor)
        },
    }
    tensors = copied({f"{group}/{name}": v for group, held in groups.items() for name, v in held.items()})
    facts = {n: getattr(progress, n) for n in ("step", "epochs", "best_epoch", "score", "probed")}
    return State(tensors, {n: list(cast(list[Any], v)) if isinstance(v, list) else v for n, v in facts.items()})


def unpack(state: State, model: nn.Module, optimizers: Optimizers, progress: Progress) -> None:
    """Put model, optimisers and progress back where they were; raises RuntimeError where the model is another."""
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "mean": {}, "memory": {}, "optimizer": {}}
    device = next(model.parameters()).device
    for name, value in state.tensors.items():
        part, _, key = name.partition("/")
        # Optimisers count their steps on the processor.
        parts[part][key] = value.clone() if part == "optimizer" and not value.ndim else value.to(device, copy=True)
    model.load_state_dict(parts["model"])
    held: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for name, value in parts["optimizer"].items():
        which, place, key = name.split(".", 2)
        held[int(which)].setdefault(int(place), {})[key] = value
    for optimizer, each in zip(optimizers, held, strict=True):
        optimizer.load_state_dict({**optimizer.state_dict(), "state": each})
    progress.best, progress.mean, progress.memory = parts["best"], parts["mean"], parts["memory"]
    for name, value in state.facts.items():
        setattr(progress, name, list(cast(list[Any], value)) if isinstance(value, list) else value)


def save(path: Path, model: nn.Module, optimizers: Optimizers, progress: Progress, identity: str) -> None:
    """Write the checkpoint whole or not at all."""
    now, good = pack(model, optimizers, progress), progress.good
    tensors = {**now.tensors, **({f"good/{k}": v for k, v in good.tensors.items()} if good else {})}
    facts = {
        "now": now.facts,
        "good": good.facts if good else None,
        "kept": {n: getattr(progress, n) for n in ("seconds", "rate", "strength", "events")},
    }
    metadata = {"format": FORMAT, "identity": identity, "facts": json.dumps(facts)}
    whole = {k: v.cpu().contiguous() for k, v in tensors.items()}
    write_whole(path, safetensors.torch.save(whole, metadata=metadata))


def load(path: Path, model: nn.Module, optimizers: Optimizers, identity: str) -> Progress:
    """Put a run back where its checkpoint was; raises RunError where the file is of another run."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError) as error:
        raise RunError(f"The checkpoint {path} cannot be read ({error}): start again without --resume.") from error
    if metadata.get("format") != FORMAT:
        raise RunError(
            f"{path} is no checkpoint of this version ({metadata.get('format')}): start again without --resume."
        )
    if metadata["identity"] != identity:
        was, now = _unlike(metadata["identity"], identity)
        raise RunError(
            f"The checkpoint {path} belongs to another run:\n  it was  {was}\n  this is {now}\n"
            "Give the same settings, data and seed, or another --out."
        )
    facts = cast(dict[str, Any], json.loads(metadata["facts"]))
    progress = Progress(**facts["kept"])
    now = State({k: v for k, v in tensors.items() if not k.startswith("good/")}, facts["now"])
    try:
        unpack(now, model, optimizers, progress)
    except RuntimeError as error:
        raise RunError(f"The checkpoint {path} belongs to another model: {error}.") from error
    if facts["good"] is not None:
        device = next(model.parameters()).device
        good = {k.removeprefix("good/"): v.to(device) for k, v in tensors.items() if k.startswith("good/")}
        progress.good = State(good, facts["good"])
    return progress


def _unlike(was: str, now: str) -> tuple[str, str]:
    """Of two identities, part by part, where the first that differ begin to."""
    pairs = zip(was.split(" | "), now.split(" | "), strict=False)
    a, b = next(((a, b) for a, b in pairs if a != b), (was, now))
    head = a.partition("(")[0]
    same = next((i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))
    at = max(a.rfind(mark, 0, same) + 1 for mark in "(, ") if "(" in a else 0
    kind, at = (f"{head}(... ", at) if at > len(head) + 1 else ("", 0)
    return f"{kind}{a[at : at + 200].strip()}", f"{kind}{b[at : at + 200].strip()}"
