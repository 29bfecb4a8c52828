"""Checkpoints: one safetensors file with everything a run needs to go on bit for bit, and no random state."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from adamant.errors import RunError
from adamant.files import write_whole

FORMAT = "adamant.checkpoint/1"


@dataclass
class Progress:
    """Where a run stands; the one mutable record of training."""

    step: int = 0
    seconds: float = 0.0
    epochs: list[dict[str, Any]] = field(default_factory=lambda: [])
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=lambda: {})
    mean: dict[str, Tensor] = field(default_factory=lambda: {})  # the averaged weights, where the recipe averages
    memory: dict[str, Tensor] = field(default_factory=lambda: {})


def save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, identity: str) -> None:
    """Write the checkpoint whole or not at all."""
    state = optimizer.state_dict()["state"]
    groups: dict[str, dict[str, Tensor]] = {
        "model": model.state_dict(),
        "best": progress.best,
        "mean": progress.mean,
        "memory": progress.memory,
        "optimizer": {f"{i}.{k}": v for i, held in state.items() for k, v in held.items() if isinstance(v, Tensor)},
    }
    tensors = {f"{g}/{k}": v.detach().cpu().contiguous().clone() for g, held in groups.items() for k, v in held.items()}
    facts = {
        "step": progress.step,
        "seconds": progress.seconds,
        "epochs": progress.epochs,
        "best_epoch": progress.best_epoch,
    }
    metadata = {"format": FORMAT, "identity": identity, "facts": json.dumps(facts)}
    write_whole(path, safetensors.torch.save(tensors, metadata=metadata))


def load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, identity: str) -> Progress:
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
        raise RunError(
            f"The checkpoint {path} belongs to another run:\n  it was  {metadata['identity']}\n  this is {identity}\n"
            "Give the same recipe, plan, threat, data and seed, or another --out."
        )
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "mean": {}, "memory": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, key = name.partition("/")
        parts[part][key] = value
    device = next(model.parameters()).device
    try:
        model.load_state_dict(parts["model"])
    except RuntimeError as error:
        raise RunError(f"The checkpoint {path} belongs to another model: {error}.") from error
    full = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in parts["optimizer"].items():
        place, _, key = name.partition(".")
        state.setdefault(int(place), {})[key] = value
    optimizer.load_state_dict({**full, "state": state})
    facts = cast(dict[str, Any], json.loads(metadata["facts"]))
    best, mean, memory = ({k: v.to(device) for k, v in parts[p].items()} for p in ("best", "mean", "memory"))
    return Progress(
        facts["step"], facts["seconds"], facts["epochs"], facts["best_epoch"], best=best, mean=mean, memory=memory
    )
