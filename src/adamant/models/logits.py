"""as_logits: look at what a model returns on a few inputs, and wrap it so that it returns logits."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from adamant.access import Sight, sight
from adamant.errors import AdamantError, ModelError
from adamant.models.wrap import LogOfProbabilities, OneLogit, OneProbability, Unwrapped, unwrapped
from adamant.random import sealed

_CLOSE = 1e-4


@runtime_checkable
class Noted(Protocol):
    """A module with something to say of how it came to be, which every audit repeats."""

    @property
    def notes(self) -> tuple[str, ...]: ...


def as_logits(model: nn.Module, x: Tensor) -> tuple[nn.Module, tuple[str, ...]]:
    """A module that returns float logits (n k), k >= 2, for this model, and remarks on what had to be done for it.

    The model is probed in eval mode on x (n *d), of two or more rows where there are; its modes, gradients and buffers
    and every global generator are as before. Raises `ModelError`, with the input's shape, for a model that raises or
    whose answer is not finite, not of rank 2, not one row for each input, or whole numbers.
    """
    with _untouched(model), torch.no_grad():
        raw = _ask(model, x)
        out, where = unwrapped(raw)
        out, shown = _checked(out, x), sight(model)
        probe, bounded = out, out.shape[1] == 1 and _in_unit(out)
        if shown == Sight.GRADIENT:  # of any other, queries are few
            probe = out if len(x) > 1 else torch.cat([out, _checked(unwrapped(_ask(model, _varied(x)))[0], x)])
            bounded = _stays_in_unit(model, x, probe)
    notes = [note for module in model.modules() if isinstance(module, Noted) for note in module.notes]
    if where:
        notes.append(f"The model returns its logits inside a {type(raw).__name__}; adamant takes {where} of it.")
    if shown < Sight.GRADIENT:
        notes.append(_LESS[shown])
    wrapped = Unwrapped(model) if where else model
    if shown == Sight.LABELS:
        return wrapped, tuple(notes)
    if out.shape[1] == 1:
        wrapped, note = _one_column(wrapped, bounded)
        notes.append(note)
    else:
        wrapped, note = _columns(wrapped, probe, bounded)
        notes += [note] if note and (shown == Sight.GRADIENT or isinstance(wrapped, LogOfProbabilities)) else []
    if wrapped is not model:
        _follow(wrapped, model)
    return wrapped, tuple(notes)


_LESS = {
    Sight.SCORES: "The model shows scores and no gradient: nothing here followed its exact gradient, and an adversary "
    "who holds the model itself may break more.",
    Sight.LABELS: "The model shows labels only: nothing here saw a score or a gradient, and an adversary who does may "
    "break more.",
}


def _follow(wrapped: nn.Module, model: nn.Module) -> None:
    inner = set(model.modules())
    for module in wrapped.modules():
        if module not in inner:
            module.training = model.training


def _one_column(model: nn.Module, bounded: bool) -> tuple[nn.Module, str]:
    if bounded:
        return OneProbability(model), (
            "The model returns one number in [0, 1], the probability p of class 1; adamant takes [log(1 - p), log p] "
            "as logits. Where p rounds to 0 or 1 the gradient is lost: return the number before the sigmoid instead."
        )
    return OneLogit(model), "The model returns one number z, taken as the logit of class 1: the logits are [0, z]."


def _columns(model: nn.Module, probe: Tensor, bounded: bool) -> tuple[nn.Module, str]:
    rows = probe.double()
    if bool((rows >= 0).all()) and bool(((rows.sum(1) - 1).abs() <= _CLOSE).all()):
        return LogOfProbabilities(model), (
            "The model returns probabilities; the logits are their logarithms. As softmax(log p) = p, verdicts, "
            "margins and DLR are sound, but where a probability rounds to 0 or 1 the gradient is lost and the model "
            "can look more robust than it is: leave out the last softmax."
        )
    if bool((rows <= _CLOSE).all() and (rows.logsumexp(1).abs() <= _CLOSE).all()):
        return model, "The model returns log-probabilities, which are logits too; they are left as they are."
    if bounded:
        return model, (
            "The model's outputs lie in [0, 1] but do not sum to 1, as with a sigmoid for each class; they are taken "
            "as scores, and where they round to 0 or 1 the gradient is lost: leave out the last sigmoid."
        )
    return model, ""


def _varied(x: Tensor) -> Tensor:
    flipped = x.flip(-1)
    return flipped * 0.5 if x.is_floating_point() else flipped


def _stays_in_unit(model: nn.Module, x: Tensor, probe: Tensor) -> bool:
    """Whether each output is a probability: it stays in [0, 1] even on inputs far outside of any budget."""

    if not _in_unit(probe) or not x.is_floating_point():
        return _in_unit(probe)
    try:
        far = (_ask(model, x * scale + shift) for scale, shift in ((1e3, 0), (-1e3, 0), (1, 1e3)))
        return all(_in_unit(unwrapped(out)[0]) for out in far)
    except ModelError:  # a model that refuses inputs out of range has told us nothing
        return True


def _in_unit(values: Tensor) -> bool:
    return bool(((values >= 0) & (values <= 1) | ~values.isfinite()).all())


def _ask(model: nn.Module, x: Tensor) -> Any:
    try:
        return model(x.clone())  # a model that works in place must not change the caller's x
    except AdamantError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or ["no message"]
        raise ModelError(
            f"The model raised {type(error).__name__} on an input of shape {tuple(x.shape)} and type {x.dtype}: "
            f"{lines[0]} Check that the data have the shape and the type that the model was made for."
        ) from error


def _checked(out: Any, x: Tensor) -> Tensor:
    asked = f"for an input of shape {tuple(x.shape)}"
    if not isinstance(out, Tensor):
        raise ModelError(
            f"The model returned a {type(out).__name__} {asked}; it must return a tensor of logits (n, classes)."
        )
    got = f"The model returned a tensor of shape {tuple(out.shape)} and type {out.dtype} {asked}"
    if not out.is_floating_point():
        raise ModelError(f"{got}; these are labels, not logits: return the scores before the argmax.")
    if out.ndim != 2 or len(out) != len(x) or out.shape[1] == 0:
        raise ModelError(
            f"{got}; it must return logits (n, classes), one row for each input ((n, 1) for one binary logit)."
        )
    odd = (~out.isfinite()).nonzero()
    if len(odd):
        row, column = odd[0].tolist()
        value = out[row, column].item()
        raise ModelError(
            f"The model returned {value} in row {row}, class {column} {asked}; no verdict can be had from it: check "
            "the weights and the range of the input."
        )
    return out


@contextmanager
def _untouched(model: nn.Module) -> Generator[None]:
    """Eval mode for the probe; afterwards modes, buffers and the global generators are as before."""
    lazy = [name for name, held in (*model.named_parameters(), *model.named_buffers()) if is_lazy(held)]
    if lazy:
        raise ModelError(
            f"The model has parameters without a size yet ({lazy[0]}); run it once on a batch before you hand it over."
        )
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, held, None if held is None else held.clone())
        for module in model.modules()
        for name, held in module._buffers.items()  # pyright: ignore[reportPrivateUsage]
    ]
    python, numbers = random.getstate(), np.random.get_state()
    with ExitStack() as stack:
        stack.enter_context(sealed(0))
        for module, _ in modes:
            module.training = False
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for module, name, held, before in buffers:
                if held is not None and before is not None and not torch.equal(held, before):
                    with torch.no_grad():
                        held.copy_(before)
                module._buffers[name] = held  # pyright: ignore[reportPrivateUsage]
            random.setstate(python)
            np.random.set_state(numbers)
