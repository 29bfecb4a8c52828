"""The networks of an adversarial autoencoder: encoder, decoder and the critics that judge codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from adamant.errors import InputError
from adamant.generation.nets import Nets, Shape


@final
@dataclass(frozen=True, kw_only=True)
class Heads:
    """How long the parts of a code are, and what is put beside it."""

    style: int  # the continuous code
    guess: int = 0  # classes that the encoder gives its opinion of
    told: int = 0  # classes that the decoder is told
    placed: int = 0  # classes that the critic of the style is told, and one more for rows without a label


class Units(nn.Module):
    """The units of a table: columns are centred and scaled on the way in, and put back on the way out.

    Without them the column with the largest numbers would be the only one that is learned. Pictures keep theirs.
    """

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.centre: Tensor
        self.spread: Tensor
        self.register_buffer("centre", torch.zeros(columns))
        self.register_buffer("spread", torch.ones(columns))

    @torch.no_grad()
    def preset(self) -> None:
        """What it begins with: no change."""
        self.centre.zero_()
        self.spread.fill_(1)

    @torch.no_grad()
    def learn(self, x: Tensor) -> None:
        """Mean and standard deviation of the columns of x (n d); a column that never changes is only centred."""
        self.centre.copy_(x.mean(0))
        spread = x.std(0, correction=0)
        self.spread.copy_(torch.where(spread > 1e-6 * x.abs().amax(0), spread, torch.ones_like(spread)))

    def off(self, x: Tensor) -> Tensor:
        """(n d) in plain numbers."""
        return (x - self.centre) / self.spread

    def on(self, x: Tensor) -> Tensor:
        """(n d) in the units of the table."""
        return x * self.spread + self.centre


class Autoencoder(nn.Module):
    """Encoder, decoder and critics, without a word on how they learn.

    A code is (n style + guess): the continuous part, then the logits of the classes that the encoder guesses, if it
    does. The decoder takes the continuous part, then one number for each class.
    """

    def __init__(self, nets: Nets, shape: Shape, heads: Heads, critic: int) -> None:
        super().__init__()
        self.heads, self.shape = heads, shape
        self.units = Units(shape[0]) if len(shape) == 1 else None
        self.decoder, body, features = nets.parts(shape, heads.style + heads.guess + heads.told)
        self.encoder = nn.Sequential(body, nn.Linear(features, heads.style + heads.guess))
        self.critic = nn.Sequential(*_dense(heads.style + heads.placed, critic, 1))
        self.critic_of_guesses = nn.Sequential(*_dense(heads.guess, critic, 1)) if heads.guess else None

    def code(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The continuous code (n style) and the logits of the guess (n guess) of inputs in their own units."""
        if x.shape[1:] != self.shape:
            raise InputError(
                f"The autoencoder was built for inputs of shape {self.shape} and got {tuple(x.shape[1:])}: "
                "resize them, or train another."
            )
        held = self.encoder(self.units.off(x) if self.units else x)
        return held[:, : self.heads.style], held[:, self.heads.style :]

    def draw(self, style: Tensor, classes: Tensor) -> Tensor:
        """What the decoder makes of a style and of class weights (n k), in plain numbers: pictures in [0, 1]."""
        return self.decoder(torch.cat([style, classes], 1))

    def plain(self, x: Tensor) -> Tensor:
        """Inputs as the decoder would draw them: errors are counted in these numbers."""
        return self.units.off(x) if self.units else x

    def forward(self, style: Tensor, classes: Tensor) -> Tensor:
        """What the decoder makes of a code, in the units of the data."""
        made = self.draw(style, classes)
        return self.units.on(made) if self.units else made


def _dense(into: int, width: int, out: int) -> list[nn.Module]:
    # Without normalisation: a critic that sees each batch in units of its own cannot tell where codes lie.
    return [nn.Linear(into, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out)]
