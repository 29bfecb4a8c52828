"""The small modules that we put around a model, so that it takes inputs in the user's units and returns logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from adamant.errors import InputError, ModelError


class Normalised(nn.Module):
    """`net((x - mean) / std)`: the normalisation inside the model, so that budgets stay in the user's units.

    `mean` and `std` hold one number for each channel of x (n c *d), or one for all.
    Raises `InputError` for lengths that differ or an std that is not positive, `ModelError` for other channels.
    """

    def __init__(
        self, net: nn.Module, mean: Sequence[float], std: Sequence[float], *, notes: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.notes = notes
        if len(mean) != len(std) or not mean:
            raise InputError(
                f"mean has {len(mean)} numbers and std has {len(std)}; give both, with one number for each channel."
            )
        if not all(0 < s < float("inf") for s in std):
            raise InputError(f"std is {tuple(std)}; every number of it must be positive, for it divides the input.")
        self.net = net
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(tuple(mean)), persistent=False)
        self.register_buffer("std", torch.tensor(tuple(std)), persistent=False)

    def forward(self, x: Tensor) -> Any:
        if len(self.mean) not in (1, x.shape[1]):
            raise ModelError(
                f"The normalisation has {len(self.mean)} channels and the input has shape {tuple(x.shape)}; "
                "give mean and std one number for each channel of the input."
            )
        lead = (1, -1, *(1,) * (x.ndim - 2))
        return self.net((x - self.mean.view(lead)) / self.std.view(lead))


def normalised(net: nn.Module, mean: Sequence[float], std: Sequence[float], *, of: str) -> Normalised:
    """The network with the normalisation that the library `of` it was trained with, and a note that says so."""
    note = (
        f"{of} has trained {type(net).__name__} with mean {tuple(mean)} and std {tuple(std)}; they are inside, so that "
        "inputs are in [0, 1]. Where your weights were trained otherwise, give mean and std."
    )
    return Normalised(net, mean, std, notes=(note,))


class Ensemble(nn.Module):
    """The mean of the logits of several models of the same classes: one surrogate made of many."""

    def __init__(self, *nets: nn.Module) -> None:
        super().__init__()
        if not nets:
            raise InputError("An ensemble needs at least one model.")
        self.nets = nn.ModuleList(nets)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([net(x) for net in self.nets]).mean(0)


class BPDA(nn.Module):
    """`net(defence(x))` with the gradient of `net(substitute(x))` (Athalye et al., 2018, arXiv:1802.00420).

    For a step before the model that has no useful gradient: quantising, JPEG, a denoiser outside torch. Without a
    substitute the identity stands for it, which asks that the defence returns something near x, of its shape.
    """

    def __init__(
        self,
        net: nn.Module,
        defence: Callable[[Tensor], Tensor],
        substitute: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.net, self.defence, self.substitute = net, defence, substitute

    def forward(self, x: Tensor) -> Any:
        with torch.no_grad():
            defended = self.defence(x)
        stand_in = x if self.substitute is None else self.substitute(x)
        if defended.shape != stand_in.shape:
            raise ModelError(
                f"The defence returns {tuple(defended.shape)} and its substitute {tuple(stand_in.shape)}; "
                "give a substitute that returns the same shape."
            )
        return self.net(stand_in + (defended - stand_in).detach())


class OneLogit(nn.Module):
    """A binary model with one logit z (n 1) as two logits [0, z] (n 2): softmax gives [1 - sigmoid(z), sigmoid(z)]."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        z = cast(Tensor, self.net(x))
        return torch.cat([torch.zeros_like(z), z], 1)


class OneProbability(nn.Module):
    """A binary model with one probability p (n 1) as two log-probabilities [log(1 - p), log p] (n 2)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        p = cast(Tensor, self.net(x))
        return torch.cat([1 - p, p], 1).clamp_min(torch.finfo(p.dtype).tiny).log()


class LogOfProbabilities(nn.Module):
    """log p for a model that returns probabilities p (n k): softmax(log p) = p, so these are its logits."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        p = cast(Tensor, self.net(x))
        return p.clamp_min(torch.finfo(p.dtype).tiny).log()


def unwrapped(out: Any) -> tuple[Any, str]:
    """The logits inside a model's answer, and where they lay: `.logits`, `["logits"]`, `[0]`, or "" when bare."""
    if isinstance(out, Tensor):
        return out, ""
    if isinstance(out, dict) and "logits" in out:  # before the attribute: a Hugging Face answer is both
        return cast(dict[str, Any], out)["logits"], '["logits"]'
    inside: Any = getattr(cast(Any, out), "logits", None)
    if isinstance(inside, Tensor):
        return inside, ".logits"
    if isinstance(out, (tuple, list)) and out:
        return cast(Sequence[Any], out)[0], "[0]"
    return out, ""


class Unwrapped(nn.Module):
    """The logits of a model that returns them inside an object, a dict or a tuple."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return unwrapped(self.net(x))[0]


class Function(nn.Module):
    """A plain function from inputs to logits as a module; a module among its parts stays out of our sight."""

    def __init__(self, call: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Any:
        return self.call(x)


class Exported(nn.Module):
    """An exported program, whose mode was fixed when it was exported: `train()` and `eval()` leave it as it is.

    Raises `ModelError` where the input's size is one for which the program was not exported.
    """

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program
        for module in self.modules():
            module.training = False

    def train(self, mode: bool = True) -> Exported:
        self.training = mode  # the program's own switches raise NotImplementedError
        return self

    def forward(self, x: Tensor) -> Any:
        try:
            return self.program(x)
        except AssertionError as error:
            raise ModelError(
                f"The exported program does not take an input of shape {tuple(x.shape)} ({error}); export it with "
                'a free batch size: torch.export.export(..., dynamic_shapes=({0: torch.export.Dim("n")},)).'
            ) from error


WRAPPERS = (OneLogit, OneProbability, LogOfProbabilities, Unwrapped)
