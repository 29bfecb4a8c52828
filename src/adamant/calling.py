"""The model, as an attack calls it: untouched, in full lanes, in the layout and precision asked for."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast, final, runtime_checkable

import torch
from torch import Tensor, nn

from adamant._types import Inputs, Logits
from adamant.batch import PerRow
from adamant.errors import AdamantError, InputError, ModelError
from adamant.random import sealed


@final
@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an attack is run; batch size, device, layout and `watch` change no result."""

    batch_size: int | None = None  # chosen by itself; halved when memory runs out
    max_looks: int | PerRow | None = None  # forwards per row, a hard limit; or one limit for each row
    # The model always sees a multiple of so many rows (copies fill up, uncounted), because kernels round differently
    # for very small batches. 1 turns it off, for a single picture; a model that counts its queries implies it.
    lanes: int = 16
    device: str | None = None  # the model's own by default
    channels_last: bool = False
    autocast: bool = False  # search in bfloat16; every success is still judged in float32
    tolerance: float = 0.0  # by which share of the spread of its logits a success must be won
    votes: int = 1  # how often a success is asked alone, and must fool more than half; more than 1 for a random model
    watch: Callable[[int, int], None] | None = field(default=None, compare=False, repr=False)  # (rows done, rows)
    clock: Callable[[int, float], None] | None = field(default=None, compare=False, repr=False)  # (part, its seconds)

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_looks", "lanes", "votes"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, PerRow) and value < 1:
                raise InputError(f"Settings({name}={value}): give a whole number from 1 on.")
        if not 0 <= self.tolerance < 1:
            raise InputError(f"Settings(tolerance={self.tolerance}): give a share from 0 to below 1.")


@runtime_checkable
class Counts(Protocol):
    """A module that counts its queries: it is asked no row that the books do not hold, so it has no lanes."""

    queries: int


@runtime_checkable
class Budgeted(Counts, Protocol):
    """One that raises `Spent` before it is asked more rows than its budget."""

    budget: int | None


@runtime_checkable
class Remembers(Protocol):
    """One that answers from memory where it was asked the same before."""

    remembers: bool


def counts(model: nn.Module) -> bool:
    """Whether a model, or a part of it, counts its queries."""
    return any(isinstance(m, Counts) for m in model.modules())


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside a data-parallel wrapper: an attack through the wrapper synchronises, or worse."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return cast(nn.Module, model.module) if isinstance(model, parallel) else model


def device_of(model: nn.Module, x: Tensor) -> torch.device:
    """Where the model is, or x, for a model without weights."""
    return next((p.device for p in model.parameters()), x.device)


@runtime_checkable
class Hosted(Protocol):
    """A module that another framework computes, and what makes the two get along while it does."""

    def hosting(self) -> AbstractContextManager[None]: ...


@contextmanager
def hosting(model: nn.Module) -> Generator[None]:
    """Inside, whatever computes a part of the model finds what it asks for."""
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, Hosted):
                stack.enter_context(module.hosting())
        yield


@contextmanager
def untouched(model: nn.Module, *, seed: int = 0, training: bool | None = False) -> Generator[None]:
    """Inside: eval mode (or as it is, with None), weights frozen, a sealed seed. After: as it was, part by part."""
    modes = [(m, m.training) for m in model.modules()]
    wants = [(p, p.requires_grad) for p in model.parameters()]
    buffers = [(b, b.detach().clone()) for b in model.buffers()]
    try:
        if training is not None:
            for module, _ in modes:
                module.training = training
        for p, _ in wants:
            p.requires_grad_(False)
        with sealed(seed), hosting(model):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for p, want in wants:
            p.requires_grad_(want)
        with torch.no_grad():
            for b, value in buffers:
                if not torch.equal(b, value):
                    b.copy_(value)


def _precision(device: torch.device, *, low: bool) -> AbstractContextManager[Any]:
    """bfloat16 where it is wanted, else none of it, whatever surrounds the engine; nothing to switch costs nothing."""
    if low or torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, torch.bfloat16, enabled=low)
    return nullcontext()


@final
@dataclass(frozen=True)
class Caller:
    """Calls the model: in full lanes, in the layout and precision asked for, and checks what comes back."""

    model: nn.Module
    settings: Settings

    def __post_init__(self) -> None:
        if self.settings.lanes > 1 and counts(self.model):
            object.__setattr__(self, "settings", replace(self.settings, lanes=1))

    def __call__(self, z: Inputs) -> Logits:
        n, spare = len(z), -len(z) % self.settings.lanes
        if spare:
            z = torch.cat([z, z[:1].expand(spare, *z.shape[1:])])
        if self.settings.channels_last and z.ndim == 4:
            z = z.contiguous(memory_format=torch.channels_last)
        with _precision(z.device, low=self.settings.autocast):
            logits = self.raw(z)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return logits[:n] if spare else logits  # an idle slice would cost the backward a copy

    def raw(self, z: Inputs) -> Logits:
        """The model's answer to z as it is, checked to be logits."""
        try:
            logits = self.model(z)
        except (torch.OutOfMemoryError, MemoryError, AdamantError):
            raise
        except Exception as error:
            if out_of_memory(error):
                raise
            raise ModelError(
                f"The model raised {type(error).__name__} on an input of shape {tuple(z.shape)} ({z.dtype}): {error}"
            ) from error
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(z):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(f"The model must return logits (rows, classes); for {len(z)} rows it returned {shape}.")
        if logits.shape[1] < 2:
            raise ModelError(
                "The model returns one number per row; an attack needs a logit per class. "
                "Wrap it in adamant.models.OneLogit, which turns one logit into two."
            )
        return logits

    def alone(self, z: Inputs) -> Logits:
        """Logits of each row asked by itself, in float32 (or float64), without autocast and without fill-up rows."""
        with torch.no_grad(), _precision(z.device, low=False):
            return torch.cat([self.raw(z[i : i + 1]) for i in range(len(z))])


def out_of_memory(error: BaseException) -> bool:
    """Whether smaller batches would help."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "not enough memory" in str(error).lower()
