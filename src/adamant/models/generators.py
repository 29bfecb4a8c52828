"""Networks that make a change of an input, from the input itself or from noise: what learned attacks are made of."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from adamant._types import Inputs
from adamant.batch import per_row
from adamant.errors import InputError
from adamant.files import sha256
from adamant.models.init import materialise
from adamant.models.state import fit, read_safetensors
from adamant.random import Rng
from adamant.threats import Linf, Projectable

KEY = "adamant.game"  # under which the file of a game says what it is
LANES = 16
_STEEP = 2.0  # root mean square
CHILD = "generator"  # among the networks of a game, and where its file describes it


@final
@dataclass(frozen=True, kw_only=True)
class Outline:
    """How to build a network of changes: for inputs of which shape, from how many numbers of noise, how large."""

    shape: tuple[int, ...]  # of one input, without the batch
    noise: int = 0  # numbers that a change is drawn from, each in [-1, 1]; 0: it is made from the input
    wide: int = 16  # channels at half the side; of a net for vectors, sixteenths of a layer
    blocks: int = 3

    @property
    def pictorial(self) -> bool:
        """Whether the networks are made of convolutions."""
        return pictorial(self.shape)


def pictorial(shape: tuple[int, ...]) -> bool:
    """Whether convolutions that halve twice fit: pictures with sides that 4 divides, from 12 on."""
    return len(shape) == 3 and all(side >= 12 and side % 4 == 0 for side in shape[1:])


@final
class Changes(nn.Module):
    """(n *d) or (n noise) -> (n *d) in [-1, 1]: a change as a share of what one entry may change by.

    Norms are over groups of channels of one row, so that a row's change depends on no neighbour and on no mode.
    """

    def __init__(self, outline: Outline) -> None:
        super().__init__()
        self.outline = outline
        if not outline.pictorial:
            self.net: nn.Module = _dense(outline)
        else:
            self.net = _decoder(outline) if outline.noise else _Residual(outline.shape[0], outline.wide, outline.blocks)

    def forward(self, source: Tensor) -> Tensor:
        # A change is often best at its ends nearly everywhere, and there tanh has no slope left to learn by: of bounded
        # length before it, it never gets there.
        v = self.net(source).flatten(1)
        v = v * (_STEEP / v.square().mean(1, keepdim=True).clamp_min(1e-12).sqrt()).clamp(max=1.0)
        return v.tanh().view(-1, *self.outline.shape)


class _Block(nn.Module):
    """x + f(x) with two convolutions."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *_convolution(wide, wide), nn.Conv2d(wide, wide, 3, padding=1, bias=False), nn.GroupNorm(4, wide)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


def _convolution(inside: int, outside: int, *, stride: int = 1) -> list[nn.Module]:
    side = 2 + stride
    return [
        nn.Conv2d(inside, outside, side, stride=stride, padding=1, bias=False), nn.GroupNorm(4, outside), nn.ReLU()
    ]  # fmt: skip


class _Residual(nn.Module):
    """Encoder, residual blocks at a quarter of the side, decoder (Xiao et al., 2018, arXiv:1801.02610, in small).

    What the encoder saw at each size is handed over to the decoder (Ronneberger et al., 2015, arXiv:1505.04597): edges
    of strokes are a matter of single pixels.
    """

    def __init__(self, channels: int, wide: int, blocks: int) -> None:
        super().__init__()
        self.down = nn.Sequential(*_convolution(channels, wide, stride=2))
        self.deep = nn.Sequential(
            *_convolution(wide, 2 * wide, stride=2), *(_Block(2 * wide) for _ in range(blocks)),
            nn.Upsample(scale_factor=2), *_convolution(2 * wide, wide),
        )  # fmt: skip
        self.up = nn.Sequential(*_convolution(2 * wide, wide), nn.Upsample(scale_factor=2))
        self.last = nn.Sequential(
            nn.Conv2d(wide + channels, wide, 3, padding=1), nn.ReLU(), nn.Conv2d(wide, channels, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        half = self.down(x)
        return self.last(torch.cat([self.up(torch.cat([self.deep(half), half], 1)), x], 1))


def _decoder(o: Outline) -> nn.Sequential:
    """Noise to a picture."""
    (channels, h, w), wide = o.shape, o.wide
    return nn.Sequential(
        nn.Linear(o.noise, 2 * wide * (h // 4) * (w // 4)), nn.Unflatten(1, (2 * wide, h // 4, w // 4)),
        nn.GroupNorm(4, 2 * wide), nn.ReLU(), *(_Block(2 * wide) for _ in range(o.blocks)),
        nn.Upsample(scale_factor=2), *_convolution(2 * wide, wide),
        nn.Upsample(scale_factor=2), nn.Conv2d(wide, channels, 3, padding=1),
    )  # fmt: skip


def _dense(o: Outline) -> nn.Sequential:
    size, hidden = math.prod(o.shape), 16 * o.wide
    middle = [part for _ in range(max(0, o.blocks - 1)) for part in (nn.Linear(hidden, hidden), nn.ReLU())]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(o.noise or size, hidden), nn.ReLU(), *middle, nn.Linear(hidden, size)
    )  # fmt: skip


def build_changes(outline: Outline, seed: int) -> Changes:
    """The network, its weights a function of the seed alone; raises InputError for a size that none has."""
    if outline.wide < 4 or outline.wide % 4 or outline.blocks < 0 or outline.noise < 0:
        raise InputError(
            f"A generator of wide={outline.wide}, blocks={outline.blocks} and noise={outline.noise}: give multiples of "
            "four for wide, and no number below zero."
        )
    return cast(Changes, materialise(lambda: Changes(outline), seed))


def in_lanes(net: nn.Module, *given: Tensor) -> Tensor:
    """What the network makes of these rows, asked in multiples of 16: kernels round differently for few of them.

    Copies of the first row fill up.
    """
    n, spare = len(given[0]), -len(given[0]) % LANES
    if not spare:
        return net(*given)
    return net(*(torch.cat([v, v[:1].expand(spare, *v.shape[1:])]) for v in given))[:n]


def changed(net: nn.Module, x: Inputs, threat: Projectable, noise: Tensor | None = None) -> Inputs:
    """x with the change that the network makes of it (or of the noise), inside the threat model by its own projection.

    The network sees x as shares of the box. Its ends stand for the whole budget under Linf, elsewhere for the width of
    the box, which the projection shortens. Noise is (n noise), or (1 noise) for one change of all rows. There is a
    gradient.
    """
    low = threat.clip(torch.full_like(x, -torch.inf)).nan_to_num(neginf=0.0)
    way = in_lanes(net, (x - low) / threat.width) if noise is None else net(noise)
    reach = threat.budget(x).clamp(max=threat.width) if isinstance(threat, Linf) else x.new_full((1,), threat.width)
    return threat.project(x + per_row(reach, x) * way, x)


def draw(net: Changes, i: int) -> Tensor:
    """The noise (1 noise) of the i-th change that the network is asked for; the same for everybody."""
    return Rng.of(0, 1).fold("universal").fold(i).uniform(net.outline.noise) * 2 - 1


def described(net: Changes) -> dict[str, Any]:
    """What a file must say of the network, so that `load_changes` builds it again."""
    return asdict(net.outline)


def load_changes(path: str, like: Tensor, *, wanted: str | None = None) -> Changes:
    """The network of changes in a game's file, as precise as `like` and beside it, in eval mode and frozen.

    Raises InputError where the file is missing, of another kind, or not the one whose sha256 begins with `wanted`, and
    ModelError for weights that do not fit.
    """
    try:
        found = sha256(path)
    except OSError:
        raise InputError(
            f"There is no generator at {path}: give the .safetensors file of a game that adamant generate played."
        ) from None
    if wanted is not None and not found.startswith(wanted.lower()):
        raise InputError(f"The generator at {path} has the sha256 {found[:16]}..., not {wanted}: it is another file.")
    return _load(path, found, str(like.device), like.dtype)


@lru_cache(maxsize=4)
def _load(path: str, _sha256: str, device: str, dtype: torch.dtype) -> Changes:
    tensors, text = read_safetensors(Path(path), KEY)
    try:
        held = cast(dict[str, Any], json.loads(text or "{}"))[CHILD]
        outline = Outline(
            shape=tuple(int(side) for side in held["shape"]), noise=int(held["noise"]), wide=int(held["wide"]),
            blocks=int(held["blocks"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{path} holds no generator of changes: give the .safetensors file of a learned attack, which "
            "adamant generate --model advgan writes."
        ) from None
    net, start = build_changes(outline, 0), f"{CHILD}."
    own = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
    fit(net, own, path=Path(path), arch=f"a generator of {outline.shape}")
    return net.to(device, dtype).eval().requires_grad_(False)
