"""The GAN: a generator and a discriminator, in any of the pairs, losses, penalties and ways to take labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adamant.errors import InputError
from adamant.generation import losses
from adamant.generation.base import Material, Measured, Shape, Turn
from adamant.generation.losses import R1, Loss, NonSaturating, Penalty
from adamant.generation.monitor import labels_there, look_at, sound
from adamant.generation.nets import Auxiliary, Conditioning, Discriminator, Generator, Nets, fitting, pair
from adamant.generation.pictures import Grid, below
from adamant.random import Rng
from adamant.runtime.average import EMA
from adamant.runtime.optimizers import Adam

_WAYS, _STEPS = 8, 10


@final
@dataclass(frozen=True, kw_only=True)
class GAN:
    """Generator against discriminator (Goodfellow et al., 2014, arXiv:1406.2661).

    In each step the discriminator moves `critics` times, then the generator once. With `labels` the generator makes
    inputs of the classes that it is asked for. Without `nets` the pair is chosen by the shape of the data.
    """

    loss: Loss = NonSaturating()
    penalties: tuple[Penalty, ...] = (R1(),)
    nets: Nets | None = None
    labels: Conditioning | None = None
    spectral: bool = False  # Miyato et al., 2018, arXiv:1802.05957, on every layer of the discriminator
    critics: int = 1
    rate: float = 1e-3  # of both players
    average: EMA | None = EMA(0.995)  # of the generator

    averaged: ClassVar[tuple[str, ...]] = ("generator",)

    @property
    def conditional(self) -> bool:
        """Whether it takes labels."""
        return self.labels is not None

    def check(self, material: Material) -> None:
        """Raise InputError for another size than the networks make, for missing labels, and for what is no number."""
        (self.nets or fitting(material.shape)).check(material.shape)
        sound(material)
        if self.labels is not None:
            labels_there(material)
        losses.check(self.penalties)
        if self.critics < 1:
            raise InputError(f"The discriminator moves at least once in each step, critics is {self.critics}.")

    def build(self, shape: Shape, classes: int, seed: int) -> nn.Module:
        """The children are `generator` and `discriminator`."""
        nets = self.nets or fitting(shape)
        make, look = pair(nets, shape, labels=self.labels, classes=classes, spectral=self.spectral, seed=seed)
        return nn.ModuleDict({"generator": make, "discriminator": look})

    def players(self, networks: nn.Module) -> dict[str, torch.optim.Optimizer]:
        """Adam without momentum, whose memory of the other player's past moves would only mislead."""
        return {
            name: Adam(self.rate, betas=(0.0, 0.99)).build(networks.get_submodule(name), 0.0)
            for name in ("discriminator", "generator")
        }

    def update(self, networks: nn.Module, turn: Turn) -> dict[str, Tensor]:
        """The discriminator's moves, each against rows made anew, then the generator's."""
        told: dict[str, Tensor] = {}
        for move in range(self.critics):
            told |= self._look(networks, turn, turn.rng.fold(f"move {move}"), turn.step * self.critics + move)
        return told | self._make(networks, turn, turn.rng.fold("make"))

    def sample(self, networks: nn.Module, rng: Rng, y: Tensor | None = None) -> Tensor:
        """One input for each stream."""
        make, _ = _both(networks)
        if self.conditional and y is None:
            y = rng.fold("label").integers(make.classes, 1)[:, 0]
        z = rng.fold("latent").normal(make.latent)
        return make(z, y if self.conditional else None)

    def logits(self, networks: nn.Module, x: Tensor, y: Tensor | None = None) -> Tensor:
        """What the discriminator says of inputs (n *d): (n,), larger where it takes them for real."""
        return _both(networks)[1](x, y if self.conditional else None)

    def measure(self, networks: nn.Module, material: Material, seed: int) -> Measured:
        """Distance and shares of features, modes and spread, and how often the discriminator is right."""
        return look_at(self, networks, material, seed)

    def gallery(self, networks: nn.Module, material: Material, seed: int) -> tuple[Grid, ...]:
        """Ways from one sample to another, and samples beside the training rows that they are nearest to."""
        if len(material.shape) != 3:
            return ()
        return (self._between(networks, material, seed), self._beside(networks, material, seed))

    def show(self, networks: nn.Module, material: Material, seed: int) -> Tensor:
        """A hundred, class by class where it takes labels."""
        n = 100
        y = torch.arange(n) * material.classes // n if self.conditional else None
        device = next(networks.parameters()).device
        return self.sample(networks, Rng.of(seed, n).to(device).fold("show"), None if y is None else y.to(device))

    def _between(self, networks: nn.Module, material: Material, seed: int) -> Grid:
        make, _ = _both(networks)
        device = next(networks.parameters()).device
        ends = Rng.of(seed, 2 * _WAYS).to(device).fold("ends").normal(make.latent)
        angle = torch.linspace(0, math.pi / 2, _STEPS, device=device)[None, :, None]
        z = (ends[:_WAYS, None] * angle.cos() + ends[_WAYS:, None] * angle.sin()).flatten(0, 1)
        y = torch.arange(_WAYS, device=device).repeat_interleave(_STEPS) % material.classes
        x = make(z, y if self.conditional else None)
        return Grid(title="From one sample to another", x=x, columns=_STEPS)

    def _beside(self, networks: nn.Module, material: Material, seed: int) -> Grid:
        x = self.show(networks, material, seed)[:: 100 // _STEPS][:_STEPS].cpu()
        among = material.data.x
        near = torch.cdist(x.flatten(1), among.flatten(1)).argmin(1)
        return below(x, among[near], "Samples, and below each the nearest training row")

    def _look(self, networks: nn.Module, turn: Turn, rng: Rng, move: int) -> dict[str, Tensor]:
        make, look = _both(networks)
        y = turn.y if self.conditional else None
        with torch.no_grad():
            made = make(rng.fold("latent").normal(make.latent), y)
        logits, named = look.both(torch.cat([turn.x, made]), None if y is None else torch.cat([y, y]))
        real, fake = logits.chunk(2)
        loss = self.loss.discriminator(real, fake)
        told = {"discriminator": loss.detach()}
        if isinstance(self.labels, Auxiliary):
            assert named is not None
            assert y is not None
            loss = loss + self.labels.weight * F.cross_entropy(named, torch.cat([y, y]))
        for penalty in self.penalties:
            if move % penalty.every == 0:
                held = penalty(lambda x: look(x, y), turn.x, made, rng)
                loss = loss + penalty.every * held
                told[type(penalty).__name__] = held.detach()
        turn.descend("discriminator", loss)
        return told

    def _make(self, networks: nn.Module, turn: Turn, rng: Rng) -> dict[str, Tensor]:
        make, look = _both(networks)
        y = turn.y if self.conditional else None
        fake, named = look.both(make(rng.fold("latent").normal(make.latent), y), y)
        with torch.no_grad():
            real = look(turn.x, y) if self.loss.paired else fake
        loss = self.loss.generator(real, fake)
        told = {"generator": loss.detach()}
        if isinstance(self.labels, Auxiliary):
            assert named is not None
            assert y is not None
            loss = loss + self.labels.weight * F.cross_entropy(named, y)
        turn.descend("generator", loss)
        return told


def _both(networks: nn.Module) -> tuple[Generator, Discriminator]:
    held = cast(nn.ModuleDict, networks)
    return cast(Generator, held["generator"]), cast(Discriminator, held["discriminator"])
