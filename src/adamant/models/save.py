"""save_model: weights and the words to rebuild them, in one safetensors file that appears whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from adamant.errors import InputError, ModelError
from adamant.files import write_whole
from adamant.models.architecture import Architecture, to_json
from adamant.models.state import KEY
from adamant.models.wrap import WRAPPERS, Normalised
from adamant.models.zoo import ZOO, outline


def save_model(model: nn.Module, path: str | os.PathLike[str], *, architecture: Architecture) -> None:
    """Write the model's weights and its architecture to a .safetensors file that `load_model` reads without `arch`.

    The modules that adamant put around the model (normalisation, logits) are taken off: loading puts them on again.
    Raises `InputError` where the architecture names another normalisation than the model's or the path does not end in
    .safetensors, `ModelError` where the weights are not those of the zoo network it names, `RunError` where the disk
    refuses.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"A model is saved as .safetensors, not as {path.name!r}; end the path in .safetensors.")
    net = _bare(model, architecture)
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in net.state_dict().items()}
    _check_weights(net, architecture)
    # One entry only: safetensors writes several in an order of its own, and equal models are to be equal files.
    write_whole(path, safetensors.torch.save(tensors, metadata={KEY: to_json(architecture)}))


def _bare(model: nn.Module, architecture: Architecture) -> nn.Module:
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    while isinstance(model, (*WRAPPERS, Normalised)):
        if isinstance(model, Normalised):
            mean, std = tuple(model.mean.tolist()), tuple(model.std.tolist())
        model = model.net
    if not (_close(mean, architecture.mean) and _close(std, architecture.std)):
        raise InputError(
            f"The model is normalised with mean {mean} and std {std}, and its architecture says mean "
            f"{architecture.mean} and std {architecture.std}; save it with Architecture(..., mean={mean}, std={std})."
        )
    return model


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
