"""save_model: a file that `load_model` reads, and that appears whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, runtime_checkable

import safetensors.torch
import torch
from torch import nn

from adamant.errors import InputError, ModelError
from adamant.files import renamed, write_whole
from adamant.models.architecture import Architecture, to_json
from adamant.models.state import KEY
from adamant.models.wrap import WRAPPERS, Normalised
from adamant.models.zoo import ZOO, outline


@runtime_checkable
class Saves(Protocol):
    """A module that writes itself, as a file of the framework that it comes from."""

    @property
    def suffix(self) -> str:
        """Of that file."""
        ...

    def save(self, path: Path) -> None:
        """Write it to this path, which ends in the suffix."""
        ...


def suffix_of(model: nn.Module) -> str:
    """What the path of a saved model ends in."""
    held = bare(model)
    return held.suffix if isinstance(held, Saves) else ".safetensors"


def save_model(model: nn.Module, path: str | os.PathLike[str], *, architecture: Architecture | None = None) -> None:
    """Write a file that `load_model` reads: of weights and their architecture, or of the model's own framework.

    A torch module becomes a .safetensors file with its architecture, so that it is loaded without `arch`; a model of
    another framework a file of that framework, which needs no adamant to be loaded. The modules that adamant put
    around the model (normalisation, logits) are taken off: loading puts them on again.
    Raises `InputError` where the architecture is missing, or names another normalisation than the model's, or the path
    ends otherwise, `ModelError` where the weights are not those of the zoo network it names, `RunError` where the disk
    refuses.
    """
    path, suffix, held = Path(path), suffix_of(model), bare(model)
    if path.suffix != suffix:
        if not suffix:
            raise InputError(f"This model is saved as a folder: give {path.name!r} a name without an end.")
        raise InputError(f"This model is saved as {suffix}, not as {path.name!r}; end the path in {suffix}.")
    if isinstance(held, Saves):
        if any(isinstance(module, Normalised) for module in model.modules()):
            raise InputError(
                f"A {suffix} file holds no mean and std of adamant's: put the normalisation into the model as a layer."
            )
        with renamed(path) as unfinished:
            held.save(unfinished)
        return
    if architecture is None:
        raise InputError(
            "A torch module is saved with what builds it again: save_model(model, path, "
            'architecture=Architecture(name="package.module:callable", shape=..., classes=...)).'
        )
    net = _normalised_as(model, architecture)
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in net.state_dict().items()}
    _check_weights(net, architecture)
    # One entry only: safetensors writes several in an order of its own, and equal models are to be equal files.
    write_whole(path, safetensors.torch.save(tensors, metadata={KEY: to_json(architecture)}))


def bare(model: nn.Module) -> nn.Module:
    """The model without what adamant put around it."""
    while isinstance(model, (*WRAPPERS, Normalised)):
        model = model.net
    return model


def _normalised_as(model: nn.Module, architecture: Architecture) -> nn.Module:
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    held = model
    while isinstance(held, (*WRAPPERS, Normalised)):
        if isinstance(held, Normalised):
            mean, std = tuple(held.mean.tolist()), tuple(held.std.tolist())
        held = held.net
    if not (_close(mean, architecture.mean) and _close(std, architecture.std)):
        raise InputError(
            f"The model is normalised with mean {mean} and std {std}, and its architecture says mean "
            f"{architecture.mean} and std {architecture.std}; save it with Architecture(..., mean={mean}, std={std})."
        )
    return held


def _close(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return len(a) == len(b) and torch.allclose(torch.tensor(a), torch.tensor(b), rtol=1e-6)


def _check_weights(net: nn.Module, architecture: Architecture) -> None:
    if architecture.name.removeprefix("zoo:") not in {entry.name for entry in ZOO}:
        return  # a network of the user's own: building it here would run their code
    with torch.device("meta"):
        wanted = outline(architecture.name, shape=architecture.shape, classes=architecture.classes)().state_dict()
    held = net.state_dict()
    odd = [k for k in {**wanted, **held} if k not in held or k not in wanted or held[k].shape != wanted[k].shape]
    if odd:
        raise ModelError(
            f"The weights are not those of {architecture}: {', '.join(odd[:5])} differ, so the file "
            "could not be loaded again; name the architecture that the model has."
        )
