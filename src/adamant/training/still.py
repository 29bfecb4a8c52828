"""What does not learn: what a plan freezes, all but the last layer while it probes, and what dropout leaves out."""

from __future__ import annotations

import fnmatch
from collections.abc import Generator
from contextlib import contextmanager

from torch import Tensor, nn

from adamant.errors import InputError
from adamant.training.plan import Plan


def still(model: nn.Module, plan: Plan, done: float) -> list[nn.Module]:
    """The modules that do not learn at this point, in weights and in statistics."""
    if done < plan.probe:
        learns = {id(m) for m in _last(model).modules()}
        return [m for m in model.modules() if id(m) not in learns]
    return [m for name, m in model.named_modules() if named(name, plan.freeze)]


def named(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a module or parameter, or what it is in, fits one of the patterns."""
    parts = name.split(".")
    inside = [".".join(parts[:i]) for i in range(1, len(parts) + 1)]
    return any(fnmatch.fnmatchcase(one, pattern) for pattern in patterns for one in inside)


@contextmanager
def frozen(model: nn.Module, plan: Plan) -> Generator[None]:
    """Inside, the parameters that the plan names take no gradient.

    Raises InputError for a pattern that names none, and where the layer that a probe trains is frozen.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in plan.freeze:
        if not any(named(name, (pattern,)) for name in names):
            raise InputError(f"Nothing in the model is named {pattern!r}: it has {', '.join(names[:8])} ...")
    held = [p for name, p in model.named_parameters() if p.requires_grad and named(name, plan.freeze)]
    for p in held:
        p.requires_grad_(False)
    try:
        if plan.probe and not any(p.requires_grad for p in _last(model).parameters()):
            raise InputError("Only the last linear layer learns at first, and it is frozen: set probe to 0.")
        yield
    finally:
        for p in held:
            p.requires_grad_(True)


@contextmanager
def dropout(model: nn.Module, share: float) -> Generator[None]:
    """Dropout before the last linear layer while the model trains, without a change to the network."""
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    if share and not linear:
        raise InputError("Dropout goes before the last linear layer, and the model has none: set dropout to 0.")

    def drop(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (nn.functional.dropout(args[0], share, training=module.training), *args[1:])

    handle = linear[-1].register_forward_pre_hook(drop) if share else None
    try:
        yield
    finally:
        if handle:
            handle.remove()


def _last(model: nn.Module) -> nn.Linear:
    last = [m for m in model.modules() if isinstance(m, nn.Linear)]
    if not last:
        raise InputError("Only the last linear layer learns at first, and the model has none: set probe to 0.")
    return last[-1]
