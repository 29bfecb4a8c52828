"""Two ways to bound: interval by interval through the layers, and by lines from the end back to the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from adamant._types import Labels, Logits
from adamant.bounds.node import Bounded
from adamant.bounds.sets import Region, lowest_of
from adamant.errors import InputError

_AT_ONCE = 1 << 24  # numbers in a batch of coefficients


@runtime_checkable
class Bound(Protocol):
    """A way to bound margins from below."""

    def __call__(self, logits: Bounded, label: Labels) -> Logits:
        """No more than the logit of the label minus that of each class, (n, k); 0 for the label itself."""
        ...


@final
@dataclass(frozen=True)
class Intervals:
    """Interval by interval (Gowal et al., 2018, arXiv:1810.12715), the affine layers at the end taken as one."""

    def __call__(self, logits: Bounded, label: Labels) -> Logits:
        _tighten_first(logits)
        return lowest(logits, _margins(logits, label), None, backward=False)


@final
@dataclass(frozen=True, kw_only=True)
class Lines:
    """By lines from the margins back to the input, over intervals in between (Zhang et al., 2020, arXiv:1906.06316).

    With `everywhere` also each bound in between is by lines (Zhang et al., 2018, arXiv:1811.00866), and never looser
    than the interval. `slope` is that of the line below an unstable ReLU; None: 0 or 1, whichever encloses less.
    With slope 0 no margin is looser than by `Intervals`; with None a few are.
    """

    slope: float | None = None
    everywhere: bool = False

    def __post_init__(self) -> None:
        if self.slope is not None and not 0 <= self.slope <= 1:
            raise InputError(f"A line below a ReLU has a slope from 0 to 1, got {self.slope}.")

    def __call__(self, logits: Bounded, label: Labels) -> Logits:
        _tighten_first(logits)
        if self.everywhere:
            for node in logits.past():
                rule = node.rule
                if not isinstance(rule, Region) and not rule.straight:
                    tighten(node.before[0], rule.loose(node.before[0].interval), self.slope)
        return lowest(logits, _margins(logits, label), self.slope)


def _margins(logits: Bounded, label: Labels) -> Tensor:
    """Coefficients (n, k, k) of the logits: row j is the logit of the label minus logit j."""
    own = F.one_hot(label, logits.shape[1]).to(logits.dtype)
    return own[:, None] - torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)


def lowest(node: Bounded, a: Tensor, slope: float | None, *, backward: bool = True) -> Tensor:
    """A lower bound (n, m) of a . value, for coefficients (n, m, *d); not `backward`: no further than affine layers."""
    held, total = {node: a}, a.new_zeros(a.shape[:2])
    while held:
        last = max(held, key=lambda n: n.depth)
        a, rule = held.pop(last), last.rule
        if isinstance(rule, Region):
            total = total + rule.lowest(a)
        elif not (backward or rule.straight):
            total = total + lowest_of(a, last.interval)
        else:
            parts, constant = rule.pull(last, a, slope)
            total = total + constant
            for before, part in parts:
                held[before] = held[before] + part if before in held else part
    return total


def tighten(node: Bounded, which: Tensor, slope: float | None) -> None:
    """Bounds of the entries that the mask (n, *d) names by lines, where they are tighter; no other entry changes."""
    low, high = (side.flatten(1) for side in node.interval)
    which = which.flatten(1)
    places = which.any(0).nonzero().squeeze(1)
    past = node.past()
    curved = any(not isinstance(n.rule, Region) and not n.rule.straight for n in past)
    widest = max(n.point[0].numel() for n in past) * (len(low) if curved else 1)
    lows, highs = low.clone(), high.clone()
    for some in places.split(max(1, _AT_ONCE // widest)):
        a = F.one_hot(some, low.shape[1]).to(low).view(1, len(some), *node.shape[1:])
        lows[:, some] = torch.where(which[:, some], lowest(node, a, slope).maximum(low[:, some]), low[:, some])
        highs[:, some] = torch.where(which[:, some], (-lowest(node, -a, slope)).minimum(high[:, some]), high[:, some])
    node.interval = lows.view_as(node.interval[0]), highs.view_as(node.interval[1])


def _tighten_first(logits: Bounded) -> None:
    """Of balls other than Linf: what the first affine layers can be at most is said by the dual norm."""
    past = logits.past()
    source = past[0].rule
    if not isinstance(source, Region) or source.exact:
        return
    plain = {past[0]}
    for node in past[1:]:
        rule = node.rule
        if isinstance(rule, Region) or not all(n in plain for n in node.before):
            continue
        if rule.straight:
            plain.add(node)
        elif node.before[0] is not past[0]:
            before = node.before[0]
            tighten(before, torch.ones_like(before.interval[0], dtype=torch.bool), None)


CATALOGUE: tuple[type, ...] = (Intervals, Lines)
