"""Generators and discriminators: the pairs that a GAN is played with, and how they take labels.

No layer looks at its neighbours in the batch. Batch norm would: a row's logit and its slope, which the penalties
need, then depend on the other rows, real and made batches must never be mixed, and samples change with the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast, final, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from adamant.errors import InputError
from adamant.generation.base import Shape
from adamant.models import load_model
from adamant.models.generators import pictorial
from adamant.models.init import materialise
from adamant.random import sealed

Parts = tuple[nn.Module, nn.Module, int]  # from latents to inputs, from inputs to features, and how many features


@runtime_checkable
class Nets(Protocol):
    """The two networks of a game."""

    @property
    def latent(self) -> int:
        """Numbers that a sample is made from."""
        ...

    def check(self, shape: Shape) -> None:
        """Raise InputError for inputs that these networks do not make."""
        ...

    def parts(self, shape: Shape, latent: int) -> Parts:
        """The bodies of both, for latents of that length (with room for the label, where there is one)."""
        ...


class PixelNorm(nn.Module):
    """Each place's channels to mean square 1 (Karras et al., 2018, arXiv:1710.10196); no neighbour is asked."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class Centred(nn.Module):
    """Pictures in [0, 1] as numbers in [-1, 1], which is what networks begin well with."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x - 1


def _is_picture(shape: Shape) -> bool:
    return len(shape) == 3


@final
@dataclass(frozen=True)
class Dense:
    """Two networks of dense layers: vectors, tables, and pictures of few pixels such as 8x8."""

    latent: int = 32
    wide: int = 256

    def check(self, shape: Shape) -> None:
        """Any input will do; raises InputError for sizes below one."""
        _sizes(self)

    def parts(self, shape: Shape, latent: int) -> Parts:
        size, wide = math.prod(shape), self.wide
        ends: list[nn.Module] = [nn.Sigmoid()] if _is_picture(shape) else []
        begins: list[nn.Module] = [Centred()] if _is_picture(shape) else []
        make = nn.Sequential(
            nn.Linear(latent, wide), nn.LeakyReLU(0.2), nn.Linear(wide, wide), nn.LeakyReLU(0.2),
            nn.Linear(wide, size), *ends, nn.Unflatten(1, shape),
        )  # fmt: skip
        look = nn.Sequential(
            *begins, nn.Flatten(), nn.Linear(size, wide), nn.LeakyReLU(0.2), nn.Linear(wide, wide), nn.LeakyReLU(0.2)
        )
        return make, look, wide


@final
@dataclass(frozen=True)
class DCGAN:
    """Convolutions after Radford et al. (2015, arXiv:1511.06434) for pictures with sides that 4 divides: 28x28, 32x32.

    Where the paper has batch norm, the generator norms each place on its own, and the discriminator does nothing.
    """

    latent: int = 64
    wide: int = 32

    def check(self, shape: Shape) -> None:
        """Raise InputError for what is no picture of such sides, and for sizes below one."""
        _sizes(self)
        if not pictorial(shape):
            raise InputError(
                f"DCGAN makes pictures with sides that 4 divides, from 12 on, such as 28x28 and 32x32; these inputs "
                f"have shape {shape}: take nets=Dense(), resize them, or bring networks of your own with nets=Own(...)."
            )

    def parts(self, shape: Shape, latent: int) -> Parts:
        c, h, w = shape
        wide, low = self.wide, (h // 4, w // 4)
        make = nn.Sequential(
            nn.Linear(latent, 4 * wide * low[0] * low[1]), nn.Unflatten(1, (4 * wide, *low)), PixelNorm(),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(4 * wide, 2 * wide, 4, stride=2, padding=1), PixelNorm(), nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(2 * wide, c, 4, stride=2, padding=1), nn.Sigmoid(),
        )  # fmt: skip
        look = nn.Sequential(
            Centred(),
            nn.Conv2d(c, wide, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(wide, 2 * wide, 4, stride=2, padding=1), nn.LeakyReLU(0.2), nn.Flatten(),
        )  # fmt: skip
        return make, look, 2 * wide * low[0] * low[1]


@final
@dataclass(frozen=True)
class Own:
    """Networks of one's own, by the names of the functions that build them: "package.module:callable".

    The generator takes latents (n latent), or (n latent + classes) with the label as one-hot behind, and makes inputs
    (n *d), pictures in [0, 1]. The discriminator takes inputs and returns features (n f), or one number (n 1); a last
    linear layer is put on top. Their weights begin as the functions leave them.
    """

    generator: str
    discriminator: str
    latent: int = 64

    def check(self, shape: Shape) -> None:
        """What they make is seen when they are built."""

    def parts(self, shape: Shape, latent: int) -> Parts:
        make, look = (_own(name) for name in (self.generator, self.discriminator))
        with torch.no_grad():
            made = _asked(make, torch.zeros(2, latent), self.generator)
            if tuple(made.shape[1:]) != shape:
                raise InputError(f"{self.generator} makes {tuple(made.shape[1:])}, and the data have shape {shape}.")
            found = _asked(look, torch.zeros(2, *shape), self.discriminator)
        if found.ndim != 2 or len(found) != 2:
            raise InputError(f"{self.discriminator} returns {tuple(found.shape)} for 2 inputs: return features (n f).")
        return make, look, found.shape[1]


def _sizes(nets: Dense | DCGAN) -> None:
    if min(nets.latent, nets.wide) < 1:
        raise InputError(f"{nets!r} has no latents or no width: give whole numbers from 1 on.")


def _own(name: str) -> nn.Module:
    return load_model(name).train()


def _asked(net: nn.Module, x: Tensor, name: str) -> Tensor:
    try:
        return cast(Tensor, net(x))
    except RuntimeError as error:
        raise InputError(f"{name} does not take inputs of shape {tuple(x.shape)}: {error}.") from error


def fitting(shape: Shape) -> DCGAN | Dense:
    """The pair for inputs of that shape: convolutions for pictures that are large enough, else dense layers."""
    return DCGAN() if pictorial(shape) else Dense()


@final
@dataclass(frozen=True)
class Projection:
    """The discriminator's logit has a term of label and features (Miyato & Koyama, 2018, arXiv:1802.05637)."""


@final
@dataclass(frozen=True)
class Auxiliary:
    """The discriminator names the class too, and both players want it right (Odena et al., 2017, arXiv:1610.09585)."""

    weight: float = 1.0


Conditioning = Projection | Auxiliary


class Generator(nn.Module):
    """Latents (n latent), with labels where it was built for classes, to inputs (n *d)."""

    def __init__(self, body: nn.Module, latent: int, classes: int) -> None:
        super().__init__()
        self.body, self.latent, self.classes = body, latent, classes

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if self.classes:
            assert y is not None
            z = torch.cat([z, F.one_hot(y, self.classes).to(z.dtype)], 1)
        return self.body(z)


class Discriminator(nn.Module):
    """Inputs (n *d), with labels where it was built for them, to a logit (n,) that is large where they look real."""

    def __init__(self, body: nn.Module, features: int, labels: Conditioning | None, classes: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(features, 1)
        self.projects = isinstance(labels, Projection)
        self.label = nn.Linear(features, classes, bias=not self.projects) if labels else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.both(x, y)[0]

    def both(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The logits, and those of the classes (n k) where it names them."""
        features = self.body(x)
        logit, named = self.head(features)[:, 0], self.label(features) if self.label else None
        if self.projects:
            assert named is not None
            assert y is not None
            return logit + named.gather(1, y[:, None])[:, 0], None
        return logit, named


def pair(
    nets: Nets, shape: Shape, *, labels: Conditioning | None, classes: int, spectral: bool, seed: int
) -> tuple[Generator, Discriminator]:
    """Both networks; those of this house have weights that depend on the seed alone."""
    nets.check(shape)
    known = classes if labels else 0
    make, look = _both(nets, shape, known, labels, seed)
    if spectral:
        with sealed(seed):  # the power iteration begins at random
            for module in look.modules():
                if isinstance(module, (nn.Linear, nn.Conv2d)):
                    parametrizations.spectral_norm(module)
    return make, look


def _both(
    nets: Nets, shape: Shape, known: int, labels: Conditioning | None, seed: int
) -> tuple[Generator, Discriminator]:
    def whole() -> nn.Module:
        make, look, features = nets.parts(shape, nets.latent + known)
        return nn.ModuleList([Generator(make, nets.latent, known), Discriminator(look, features, labels, known)])

    both = cast(nn.ModuleList, grown(nets, whole, seed))
    return cast(Generator, both[0]), cast(Discriminator, both[1])


def grown(nets: Nets, whole: Callable[[], nn.Module], seed: int) -> nn.Module:
    """What `whole` makes of the parts of `nets`, with weights that depend on the seed; `Own` parts keep theirs."""
    if not isinstance(nets, Own):
        return materialise(whole, seed)
    with sealed(seed):
        return whole()


NETS: tuple[type, ...] = (Dense, DCGAN, Own)
LABELS: tuple[type, ...] = (Projection, Auxiliary)
