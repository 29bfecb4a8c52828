"""Foreign: a model that another framework computes, as a torch module whose weights and state are torch's."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from adamant.models.foreign.bridge import Tensors, Traced, call
from adamant.models.layout import Shape, laid_out


class Host(Protocol):
    """A model in its own framework: how it computes, and how weights go back into it.

    Weights and state (statistics of batches, seeds) are inputs of its functions, `(x, *weights, *state)`, and outputs
    are the logits and, behind them, the new state: so torch's are the truth and nothing has to be kept in step.
    """

    shape: Shape | None  # of one input in the framework's own layout, None where it was not said
    classes: int
    sizes: bool  # whether every new size of a batch costs a compilation
    native: bool  # whether it is torch that computes: then its functions are torch's own and need no bridge
    notes: tuple[str, ...]  # what the audit should say of it
    suffix: str  # of its own kind of file

    def held(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """The weights and the state, by name, that the framework's own object holds now, as tensors of torch's own."""
        ...

    def function(self, training: bool) -> Traced | Callable[..., Tensors]:
        """Inputs, weights and state to logits and new state, as in this mode."""
        ...

    def receive(self, weights: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Any:
        """Put the weights and the state into the framework's own object, and return it."""
        ...

    def save(self, path: Path) -> None:
        """Write the framework's own kind of file, from its own object."""
        ...


class Foreign(nn.Module):
    """A model of another framework: (n *d) to logits (n k); `train()` and `eval()` are passed on.

    Its parameters are torch's and its state are buffers, under the names that the framework gives them, with "_" for
    what torch does not allow in a name. Copies share the framework's object, which only `receive` writes to.
    """

    def __init__(self, host: Host) -> None:
        super().__init__()
        weights, state = host.held()
        self.host = host
        self.names = _plain((*weights, *state), taken=dir(self))
        for name, value in weights.items():
            self.register_parameter(self.names[name], nn.Parameter(value))
        for name, value in state.items():
            self.register_buffer(self.names[name], value)
        self._weights, self._state = (tuple(self.names[name] for name in group) for group in (weights, state))

    def __deepcopy__(self, memo: dict[int, Any]) -> Foreign:
        made = type(self).__new__(type(self))
        memo[id(self)], memo[id(self.host)] = made, self.host
        made.__dict__ = copy.deepcopy(self.__dict__, memo)
        return made

    @property
    def notes(self) -> tuple[str, ...]:
        """What the audit should say of it."""
        return self.host.notes

    @property
    def suffix(self) -> str:
        """Of the files that `save` writes."""
        return self.host.suffix

    def forward(self, x: Tensor) -> Tensor:
        if not len(x):
            return (
                (x if x.is_floating_point() else x.float()).flatten(1).sum(1, keepdim=True).expand(0, self.host.classes)
            )
        z = laid_out(x, self.host.shape)
        weights, state = self._held(self._weights), self._held(self._state)
        n = len(z)
        if self.host.sizes and not self.training and n & (n - 1):
            z = torch.cat([z, z[:1].expand((1 << n.bit_length()) - n, *z.shape[1:])])
        z = z.to(next((w.dtype for w in weights if w.is_floating_point()), torch.float32))
        if self.training:  # the way back reads the state of before
            state = [held.clone() for held in state]
        function = self.host.function(self.training)
        run = cast(Callable[..., Tensors], function) if self.host.native else partial(call, cast(Traced, function))
        logits, *new = run(z, *weights, *state)
        if self.training:
            with torch.no_grad():
                for held, value in zip(self._held(self._state), new, strict=True):
                    held.copy_(value)
        return logits[:n].to(x.device, x.dtype if x.is_floating_point() else logits.dtype)

    def _held(self, names: tuple[str, ...]) -> list[Tensor]:
        return [getattr(self, name) for name in names]  # not get_parameter: a functional call puts plain tensors there

    def receive(self) -> Any:
        """The framework's own object, with the weights and the state of this module written into it."""
        weights, state = self.host.held()
        return self.host.receive(
            *({name: getattr(self, self.names[name]).detach() for name in group} for group in (weights, state))
        )

    def save(self, path: Path) -> None:
        """Write the model as a file of its own framework, which that framework alone can load and use."""
        before = self.host.held()
        try:
            self.receive()
            self.host.save(path)
        finally:
            self.host.receive(*before)

    @contextmanager
    def hosting(self) -> Generator[None]:
        """Inside, torch computes with one thread: its idle ones would spin while another framework works."""
        threads = torch.get_num_threads()
        torch.set_num_threads(threads if self.host.native else 1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _plain(names: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """A name that torch allows for each of these, none of them twice."""
    found: dict[str, str] = {}
    used = set(taken)
    for name in names:
        first = plain = re.sub(r"\W", "_", name) or "weight"
        more = 1
        while plain in used:
            plain, more = f"{first}_{more}", more + 1
        used.add(plain)
        found[name] = plain
    return found
