"""What looks alike to a network of the user's own: a distance between its activations."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from adamant._types import Inputs, Mask, Scores
from adamant.batch import per_row
from adamant.errors import InputError
from adamant.random import Rng
from adamant.threats._box import Ball

_HALVINGS = 12  # of the segment of a projection
_LENGTHS = (-20.0, 0.0)  # powers of two of the diagonal of the box, among which the length of a step is sought
_ROUNDS = 9  # which finds it to some three per cent
_HAIR = 1e-6  # rounding in batches of other sizes must not carry a point out of the set


@final
class Features:
    """Activations of named layers of a network, as a value: equal where architecture, weights and layers are.

    Zhang et al., 2018, arXiv:1801.03924, take those after each ReLU of a classifier; no weights are shipped. The
    network is copied, in float64, which it must take, and in eval mode; nothing is done to the one given. Of a layer
    that is called twice the last call counts. It prints as what it is and cannot be read back from that text: weights
    have no short form. Raises InputError for layers that the network lacks.
    """

    def __init__(self, network: nn.Module, layers: tuple[str, ...]) -> None:
        known = dict(network.named_modules())
        missing = [name for name in layers if name not in known or not name]
        if missing or not layers:
            some = ", ".join([name for name in known if name][:20])
            raise InputError(
                f"The network {type(network).__name__} has no layers {missing}: choose among {some}."
                if missing
                else f"Which layers of {type(network).__name__} are compared? Name some among {some}."
            )
        self.layers = tuple(layers)
        self._network = copy.deepcopy(network).double().eval().requires_grad_(False)
        self.weights = _digest(network)
        self._what = f"Features({type(network).__name__}, layers={self.layers}, weights={self.weights!r})"

    def __repr__(self) -> str:
        return self._what

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Features) and repr(other) == repr(self)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __call__(self, x: Inputs) -> Tensor:
        """(n, m) in float64: the channels of each place scaled to unit length, each layer by the root of its places."""
        held: dict[str, Tensor] = {}
        network = self._network.to(x.device)
        modules = dict(network.named_modules())
        hooks = [modules[name].register_forward_hook(_keep(held, name)) for name in self.layers]
        try:
            with torch.no_grad():
                network(x.double().contiguous())
        finally:
            for hook in hooks:
                hook.remove()
        return torch.cat([_unit(held[name]) for name in self.layers], 1)


@final
@dataclass(frozen=True)
class Perceptual(Ball):
    """{z in the box: ||f(z) - f(x)||_2 <= eps}, f the activations of a network, scaled as `Features` does.

    Laidlaw et al., 2021, arXiv:2006.12655, with the user's own network, whose budgets are its own. It knows of no
    steepest direction and no nearest member: a step goes along the gradient, so far that f moves by its share of the
    budget, and a projection goes back toward x. Each asks the network some ten times, in float64. Where all channels
    of a place vanish, f jumps, and a projection may stop short of the edge.
    """

    features: Features = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.box[1] - self.box[0]):
            raise InputError(f"Perceptual needs a finite box, got {self.box}: a step is measured along its diagonal.")

    @property
    def allows(self) -> str:
        """What the attacker may do, in words."""
        what = f"the activations of {self.features!r} move by no more than the budget"
        return f"change an input in any way after which {what}"

    def check(self, x: Inputs) -> None:
        super().check(x)
        try:
            found = self.features(x[:1])
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError) as error:
            what = f"inputs of shape {tuple(x.shape[1:])} in float64"
            raise InputError(f"The network of {self.features!r} cannot judge {what}: {error}") from error
        if not bool(found.isfinite().all()):
            raise InputError(f"The activations of {self.features!r} are no numbers on the first input.")

    def contains(self, z: Inputs, x: Inputs) -> Mask:
        return self._sizes_fit(self.size(z, x), z, x)

    def size(self, z: Inputs, x: Inputs) -> Scores:
        """How far apart the activations are; row by row, so that the last bit does not depend on the batch."""
        apart = [(self.features(z[i : i + 1]) - self.features(x[i : i + 1])).norm(dim=1) for i in range(len(z))]
        return torch.cat(apart) if apart else z.new_zeros(0, dtype=torch.float64)

    def sample(self, x: Inputs, rng: Rng) -> Inputs:
        """A random share of the way to a random point of the box, or as much of it as is inside; not uniform."""
        goal = self.box[0] + self.width * rng.uniform(*x.shape[1:], dtype=x.dtype)
        return self.project(x + (goal - x) * per_row(rng.fold("share").uniform(dtype=x.dtype), x), x)

    def move(self, z: Inputs, g: Inputs, rate: Scores | float) -> Inputs:
        """Along the gradient, so far that the activations move by this share of the budget (to three per cent)."""
        g = self.free(g)
        way = g / per_row(g.flatten(1).norm(dim=1).clamp_min(torch.finfo(g.dtype).tiny), g)
        diagonal, want, here = self.width * math.sqrt(z[0].numel()), rate * self._limits(z), self.features(self.clip(z))
        low, high = (torch.full((len(z),), e, dtype=z.dtype, device=z.device) for e in _LENGTHS)
        for _ in range(_ROUNDS):
            middle = (low + high) / 2
            there = self.features(self.clip(z + way * per_row(diagonal * middle.exp2(), z)))
            short = (there - here).norm(dim=1) < want
            low, high = torch.where(short, middle, low), torch.where(short, high, middle)
        return z + way * per_row(diagonal * high.exp2(), z)

    def project(self, z: Inputs, x: Inputs) -> Inputs:
        """Into the box, then back on the straight line to x until it is inside: a member, and not the nearest one."""
        return self.around(x)(z)

    def around(self, x: Inputs) -> Callable[[Inputs], Inputs]:
        """`project` around this x, whose activations are worked out once."""
        here, most = self.features(x), self._limits(x) * (1 - _HAIR)

        def inside(z: Inputs) -> Mask:
            return (self.features(z) - here).norm(dim=1) <= most

        def project(z: Inputs) -> Inputs:
            end = self._hold(self.clip(z), x)
            whole, way = inside(end), (end - x).nan_to_num(0.0)
            if bool(whole.all()):
                return end
            low, high = (torch.full((len(x),), t, dtype=x.dtype, device=x.device) for t in (0.0, 1.0))
            for _ in range(_HALVINGS):
                middle = (low + high) / 2
                fits = inside(self.clip(x + way * per_row(middle, x)))
                low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
            return torch.where(per_row(whole, x), end, self.clip(x + way * per_row(low, x)))

        return project


def _keep(held: dict[str, Tensor], name: str) -> Callable[..., None]:
    def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], out: object) -> None:
        if not isinstance(out, Tensor) or out.ndim < 2:
            what = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise InputError(f"The layer {name} gives {what}: compare layers that give (rows, channels, ...).")
        held[name] = out.clone()  # the layer after it may write into it

    return hook


def _unit(a: Tensor) -> Tensor:
    places = a.shape[2:].numel()
    length = a.norm(dim=1, keepdim=True).clamp_min(1e-10)
    return (a / length).flatten(1) / math.sqrt(places)


def _digest(network: nn.Module) -> str:
    """Eight letters that stand for the architecture and the weights."""
    hashed = hashlib.sha256(repr(network).encode())
    for name, value in network.state_dict().items():
        hashed.update(name.encode() + value.detach().cpu().double().numpy().tobytes())
    return hashed.hexdigest()[:8]
