"""Changes of an input that a gradient is averaged over: what carries an adversarial example to other models.

They combine freely: `Varied((Resize(), Scale(5)), n=5, blur=7)` with `MIFGSM` is the usual stack of papers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, final, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from adamant._types import Inputs
from adamant.access import Cost, Look, Sight, View, WhiteBox
from adamant.batch import Shared
from adamant.errors import InputError
from adamant.random import Rng


@runtime_checkable
class Change(Protocol):
    """One random change of each input, with a gradient; i is the number of the copy."""

    def __call__(self, z: Inputs, rng: Rng, i: int) -> Inputs: ...


@final
@dataclass(frozen=True)
class Resize:
    """With a chance smaller, and anywhere on an empty canvas (Xie et al., 2019, arXiv:1803.06978)."""

    low: float = 0.9  # the smallest factor
    chance: float = 0.5

    def __call__(self, z: Inputs, rng: Rng, i: int) -> Inputs:
        _image(z, "Resize")
        u = rng.fold("resize").uniform(4, dtype=z.dtype)
        scale = torch.where(u[:, 0] < self.chance, self.low + (1 - self.low) * u[:, 1], 1.0)
        slack = 1 / scale - 1
        theta = torch.zeros(len(z), 2, 3, dtype=z.dtype, device=z.device)
        theta[:, 0, 0] = theta[:, 1, 1] = 1 / scale
        theta[:, :, 2] = (2 * u[:, 2:] - 1) * slack[:, None]
        grid = F.affine_grid(theta, list(z.shape), align_corners=False)
        small = F.grid_sample(z, grid, align_corners=False)
        return torch.where((scale == 1).view(-1, 1, 1, 1), z, small)  # untouched where nothing was drawn


@final
@dataclass(frozen=True)
class Scale:
    """Copy i is darker by a factor of 2^(i mod copies) (Lin et al., 2020, arXiv:1908.06281)."""

    copies: int = 5

    def __call__(self, z: Inputs, rng: Rng, i: int) -> Inputs:
        return z * 0.5 ** (i % self.copies)


@final
@dataclass(frozen=True)
class Mix:
    """A little of another picture of the pool (k, *d) is added (Admix; Wang et al., 2021, arXiv:2102.00436)."""

    pool: Shared
    share: float = 0.2

    def __call__(self, z: Inputs, rng: Rng, i: int) -> Inputs:
        pool = self.pool.values.to(z)
        if pool.shape[1:] != z.shape[1:]:
            raise InputError(f"The pool of Mix holds {tuple(pool.shape[1:])}, the inputs are {tuple(z.shape[1:])}.")
        return z + self.share * pool[rng.fold("mix").integers(len(pool))]


@final
@dataclass(frozen=True)
class Shuffle:
    """Cut at random places into blocks, which change places (Wang et al., 2024, arXiv:2308.10299).

    Without the paper's rotation of the blocks.
    """

    blocks: int = 2

    def __call__(self, z: Inputs, rng: Rng, i: int) -> Inputs:
        _image(z, "Shuffle")
        for axis in (2, 3):
            order = _shuffled(rng.fold("shuffle").fold(axis), z.shape[axis], self.blocks)
            shape = [len(z), 1, 1, 1]
            shape[axis] = -1
            z = z.gather(axis, order.view(shape).expand_as(z))
        return z


@final
@dataclass(frozen=True)
class Jitter:
    """Uniform noise, at most so much for each entry, in units of the input (Wang & He, 2021, arXiv:2103.15571)."""

    reach: float

    def __call__(self, z: Inputs, rng: Rng, i: int) -> Inputs:
        return z + self.reach * (2 * rng.fold("jitter").uniform(*z.shape[1:], dtype=z.dtype) - 1)


@final
@dataclass(frozen=True)
class Varied:
    """The mean gradient over n changed copies of the input, and smoothed over neighbours where `blur` says so.

    A look with a gradient shows the mean logits of the copies, one without it those of the input itself. `blur` is the
    odd width of a Gaussian (translation invariance; Dong et al., 2019, arXiv:1904.02884), a third of it its deviation.
    """

    changes: tuple[Change, ...] = ()
    n: int = 1
    blur: int = 0
    gives: ClassVar[Sight] = Sight.GRADIENT
    takes: ClassVar[Sight] = Sight.GRADIENT
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InputError(f"Varied needs at least one copy, got n={self.n}.")
        if self.blur < 0 or (self.blur and self.blur % 2 == 0):
            raise InputError(f"blur is the width of a kernel, an odd number, or 0 for none; got {self.blur}.")

    def look(self, view: View, z: Inputs, *, grad: bool) -> Look:
        if not grad:
            return WhiteBox().look(view, z, grad=False)
        looks: list[Look] = []
        for i in range(self.n):
            rng = view.rng().fold(i)

            def changed(v: Tensor, rng: Rng = rng, i: int = i) -> Tensor:
                for change in self.changes:
                    v = change(v, rng, i)
                return view.model(v)

            looks.append(WhiteBox().look(View(changed, view.score, view.clip, view.free, view.rng), z, grad=True))
        g = torch.stack([look.slope for look in looks]).mean(0)
        if self.blur:
            g = view.free(self._smooth(g))
        return Look(torch.stack([k.logits for k in looks]).mean(0), torch.stack([k.loss for k in looks]).mean(0), g)

    def cost(self, *, grad: bool) -> Cost:
        return Cost(self.n, self.n) if grad else Cost(1, 0)

    def _smooth(self, g: Tensor) -> Tensor:
        _image(g, "blur")
        at = torch.arange(self.blur, dtype=g.dtype, device=g.device) - self.blur // 2
        line = (-(at**2) / (2 * (self.blur / 3) ** 2)).exp()
        kernel = torch.outer(line, line)
        kernel = (kernel / kernel.sum()).expand(g.shape[1], 1, -1, -1)
        return F.conv2d(g, kernel, padding=self.blur // 2, groups=g.shape[1])


def _image(z: Tensor, name: str) -> None:
    if z.ndim != 4:
        raise InputError(f"{name} changes pictures (rows, channels, height, width), got {tuple(z.shape)}.")


def _shuffled(rng: Rng, length: int, blocks: int) -> Tensor:
    """For each row an order of 0..length-1 that moves whole blocks, (n, length)."""
    if blocks > length:
        raise InputError(f"{length} pixels cannot be cut into {blocks} blocks.")
    u = rng.fold("cuts").uniform(length - 1)
    cuts = u.argsort(dim=1)[:, : blocks - 1] + 1  # different places, each inside
    starts = torch.zeros(len(u), length, dtype=torch.long, device=u.device).scatter(1, cuts, 1)
    block = starts.cumsum(1)
    place = rng.fold("order").uniform(blocks).argsort(dim=1).argsort(dim=1)
    return (place.gather(1, block) * length + torch.arange(length, device=u.device)).argsort(dim=1)


CATALOGUE: tuple[type, ...] = (Resize, Scale, Mix, Shuffle, Jitter)
