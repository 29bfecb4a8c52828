"""Foreign: a model that another framework computes, as a torch module whose weights and state are torch's."""

from __future__ import annotations

import copy
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from adamant.models.foreign.bridge import Traced, call
from adamant.models.layout import Shape, laid_out


class Host(Protocol):
    """A model in its own framework: how it computes, and how weights go back into it.

    Weights and state (statistics of batches, seeds) are inputs of its functions, `(x, *weights, *state)`, and outputs
    are the logits and, behind them, the new state: so torch's are the truth and nothing has to be kept in step.
    """

    shape: Shape | None  # of one input in the framework's own layout, None where it was not said
    classes: int
    sizes: bool  # whether every new size of a batch costs a compilation
    notes: tuple[str, ...]  # what the audit should say of it
    suffix: str  # of its own kind of file

    def function(self, training: bool) -> Traced:
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

    Its parameters are torch's and its state are buffers, under the names that the framework gives them, with "/" for
    ".". Copies share the framework's object, which is written to by `receive` and `save` alone.
    """

    def __init__(self, host: Host, weights: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.host = host
        self.names = {name: _plain(name) for name in (*weights, *state)}
        for name, value in weights.items():
            self.register_parameter(_plain(name), nn.Parameter(value))
        for name, value in state.items():
            self.register_buffer(_plain(name), value)
        self._weights, self._state = tuple(map(_plain, weights)), tuple(map(_plain, state))

    def __deepcopy__(self, memo: dict[int, Any]) -> Foreign:
        made = type(self).__new__(type(self))
        memo[id(self)], memo[id(self.host)] = made, self.host
        made.__dict__ = copy.deepcopy(self.__dict__, memo)
        return made

    @property
    def notes(self) -> tuple[str, ...]:
        return self.host.notes

    def forward(self, x: Tensor) -> Tensor:
        if not len(x):
            return x.new_zeros(0, self.host.classes)
        z = laid_out(x, self.host.shape)
        weights, state = self._held(self._weights), self._held(self._state)
        n = len(z)
        if self.host.sizes and not self.training and n & (n - 1):
            z = torch.cat([z, z[:1].expand((1 << n.bit_length()) - n, *z.shape[1:])])
        z = z.to(next((w.dtype for w in weights if w.is_floating_point()), z.dtype))
        if self.training:  # the way back reads the state of before
            state = [held.clone() for held in state]
        logits, *new = call(self.host.function(self.training), z, *weights, *state)
        if self.training:
            with torch.no_grad():
                for held, value in zip(self._held(self._state), new, strict=True):
                    held.copy_(value)
        return logits[:n].to(x)

    def _held(self, names: tuple[str, ...]) -> list[Tensor]:
        return [getattr(self, name) for name in names]  # not get_parameter: a functional call puts plain tensors there

    def receive(self) -> Any:
        """The framework's own object, with the weights and the state of this module written into it."""
        turned = {plain: name for name, plain in self.names.items()}
        weights = {turned[name]: getattr(self, name).detach() for name in self._weights}
        state = {turned[name]: getattr(self, name).detach() for name in self._state}
        return self.host.receive(weights, state)

    def save(self, path: Path) -> None:
        """Write the model as a file of its own framework, which that framework alone can load and use."""
        self.receive()
        self.host.save(path)

    @contextmanager
    def hosting(self) -> Generator[None]:
        """Inside, torch computes with one thread: its idle ones would spin while the other framework works."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _plain(name: str) -> str:
    return name.replace(".", "_").replace("/", "_")
