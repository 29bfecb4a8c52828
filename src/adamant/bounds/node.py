"""What stands where a tensor stood: a value of the network, with the layers that lead to it and bounds on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from adamant.bounds.sets import Interval, Region
from adamant.errors import ModelError

Pulled = tuple[list[tuple["Bounded", Tensor]], Tensor | float]  # coefficients of what came before, and a constant


class Rule(Protocol):
    """One layer: how bounds pass through it."""

    @property
    def straight(self) -> bool:
        """Whether it is affine, so that nothing is lost where bounds pass."""
        ...

    def interval(self, *before: Interval) -> Interval:
        """From intervals of what comes before to that of the outcome."""
        ...

    def pull(self, node: Bounded, a: Tensor, slope: float | None) -> Pulled:
        """From coefficients (n, m, *out) of the outcome to those of what came before, so that the sum is no larger.

        `slope` is that of the line below an unstable ReLU; None takes 0 or 1, whichever encloses less.
        """
        ...

    def loose(self, before: Interval) -> Tensor:
        """For which entries of what came before tighter bounds would change anything."""
        ...


class Bounded:
    """A value on its way through a network: `model(node)` records the layers, and answers with a node.

    `point` is the value of one input on the same way: from it batch normalisation takes its statistics while the model
    trains, and at the end it is the logits. Beside it go the bounds, which are worked out when they are asked for.
    """

    def __init__(self, point: Tensor, rule: Rule | Region, before: tuple[Bounded, ...] = ()) -> None:
        self.point, self.rule, self.before = point, rule, before
        self.depth: int = 1 + max((node.depth for node in before), default=0)
        self._interval: Interval | None = None

    @property
    def interval(self) -> Interval:
        """The least and the largest value of each entry, each (n, *d)."""
        if self._interval is None:
            rule = self.rule
            self._interval = (
                rule.interval if isinstance(rule, Region) else rule.interval(*(n.interval for n in self.before))
            )
        return self._interval

    @interval.setter
    def interval(self, value: Interval) -> None:
        self._interval = value

    def past(self) -> list[Bounded]:
        """All nodes that lead here, and this one; what comes first stands first."""
        found: dict[Bounded, None] = {self: None}
        queue = [self]
        while queue:
            fresh = [n for n in queue.pop().before if n not in found]
            found.update(dict.fromkeys(fresh))
            queue += fresh
        return sorted(found, key=lambda n: n.depth)

    # --- as a tensor --------------------------------------------------------------------------------------------------

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return _through(func.__name__, args, kwargs or {})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(Tensor, name):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Bounded:
            return _through(name, (self, *args), kwargs)

        return call

    @property
    def shape(self) -> torch.Size:
        return self.point.shape

    @property
    def ndim(self) -> int:
        return self.point.ndim

    @property
    def dtype(self) -> torch.dtype:
        return self.point.dtype

    @property
    def device(self) -> torch.device:
        return self.point.device

    def dim(self) -> int:
        return self.point.ndim

    def size(self, dim: int | None = None) -> Any:
        return self.point.size() if dim is None else self.point.size(dim)

    def __len__(self) -> int:
        return len(self.point)

    def __bool__(self) -> bool:
        raise ModelError("The model decides by its values where to go on, and bounds would have to go every way.")

    def __iter__(self) -> Any:
        return _through("unbind", (self,), {})

    def __add__(self, other: Any) -> Any:
        return _through("add", (self, other), {})

    def __sub__(self, other: Any) -> Any:
        return _through("sub", (self, other), {})

    def __mul__(self, other: Any) -> Any:
        return _through("mul", (self, other), {})

    def __truediv__(self, other: Any) -> Any:
        return _through("div", (self, other), {})

    def __radd__(self, other: Any) -> Any:
        return _through("add", (other, self), {})

    def __rsub__(self, other: Any) -> Any:
        return _through("sub", (other, self), {})

    def __rmul__(self, other: Any) -> Any:
        return _through("mul", (other, self), {})

    def __neg__(self) -> Any:
        return _through("mul", (self, -1.0), {})

    def __getitem__(self, item: Any) -> Any:
        return _through("getitem", (self, item), {})


def _through(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bounded:
    from adamant.bounds.layers import passed  # the table of layers is made of nodes

    device = next((a.device.type for a in args if isinstance(a, Bounded)), "cpu")
    with torch.autocast(device, enabled=False):  # bounds in half precision would bound nothing
        return passed(name.strip("_"), args, kwargs)
