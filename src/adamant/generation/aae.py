"""The adversarial autoencoder: it rebuilds its inputs, and a critic holds its codes to a prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adamant.errors import InputError
from adamant.generation import aae_labels, aae_measures, aae_pictures, losses, priors
from adamant.generation.aae_labels import Clustered, Guessed, Ignored, Labels, Placed, Told
from adamant.generation.aae_nets import Autoencoder, Heads
from adamant.generation.base import Material, Measured, Shape, Turn
from adamant.generation.losses import R1, Critic, NonSaturating, Penalty
from adamant.generation.monitor import labels_there, sound
from adamant.generation.nets import Dense, Nets, grown
from adamant.generation.pictures import Grid, Map
from adamant.generation.priors import Categorical, Gaussian, Prior
from adamant.random import Rng
from adamant.runtime.average import EMA, Average


@final
@dataclass(frozen=True, kw_only=True)
class Rates:
    """Learning rates of Adam, one for each player: their moments must not mix."""

    reconstruction: float = 1e-3
    critic: float = 1e-3
    encoder: float = 3e-4
    labels: float = 1e-3


@final
@dataclass(frozen=True, kw_only=True)
class AAE:
    """An adversarial autoencoder (Makhzani et al., 2016, arXiv:1511.05644) with a deterministic encoder.

    In every step encoder and decoder learn to rebuild the batch, the critic learns to tell codes from draws of the
    prior, and the encoder learns to deceive it, each with an optimiser of its own. The length of the code is the
    prior's; `nets.latent` is not asked.
    """

    prior: Prior = Gaussian()
    labels: Labels = Ignored()
    nets: Nets = Dense(wide=512)
    critic: int = 256  # the width of its two hidden layers
    rates: Rates = Rates()
    penalties: tuple[Penalty, ...] = (R1(gamma=1.0, every=4),)  # on the critics; the paper has none
    average: Average | None = EMA(0.998)

    @property
    def averaged(self) -> tuple[str, ...]:
        """The critics are of no use afterwards."""
        return ("encoder", "decoder")

    @property
    def conditional(self) -> bool:
        """Whether samples are of a class that one can ask for."""
        return isinstance(self.labels, (Told, Placed, Guessed))

    # --- the game -------------------------------------------------------------------------------------------------

    def check(self, material: Material) -> None:
        priors.check(self.prior)
        self.nets.check(material.shape)
        other = tuple(material.validation.x.shape[1:])
        if other != material.shape:
            raise InputError(f"Rows to validate with have shape {other}, and to train on {material.shape}: give alike.")
        sound(material)
        aae_labels.check(self.labels, material.data, self.prior.parts)
        if isinstance(self.labels, Told):
            labels_there(material)
        losses.check(self.penalties)
        if self.critic < 1:
            raise InputError(f"critic is {self.critic}: give the width of its hidden layers, from 1 on.")

    def heads(self, classes: int) -> Heads:
        """What a code is made of, and who is told the class."""
        style = self.prior.dim
        match self.labels:
            case Clustered(count=count):
                return Heads(style=style, guess=count)
            case Guessed():
                return Heads(style=style, guess=classes)
            case Told():
                return Heads(style=style, told=classes)
            case Placed():
                return Heads(style=style, placed=classes + 1)
            case _:
                return Heads(style=style)

    def build(self, shape: Shape, classes: int, seed: int) -> nn.Module:
        heads = self.heads(classes)
        return grown(self.nets, lambda: Autoencoder(self.nets, shape, heads, self.critic), seed)

    def players(self, networks: nn.Module) -> dict[str, torch.optim.Optimizer]:
        net, rates = cast(Autoencoder, networks), self.rates
        coder = list(net.encoder.parameters())
        critics = [*net.critic.parameters(), *(net.critic_of_guesses.parameters() if net.critic_of_guesses else ())]
        # Little momentum where two players chase each other.
        found: dict[str, torch.optim.Optimizer] = {
            "reconstruction": torch.optim.Adam([*coder, *net.decoder.parameters()], rates.reconstruction),
            "critic": torch.optim.Adam(critics, rates.critic, betas=(0.5, 0.99)),
            "encoder": torch.optim.Adam(coder, rates.encoder, betas=(0.5, 0.99)),
        }
        if isinstance(self.labels, Guessed):
            found["labels"] = torch.optim.Adam(coder, rates.labels)
        return found

    def update(self, networks: nn.Module, turn: Turn) -> dict[str, Tensor]:
        net, rng = cast(Autoencoder, networks), turn.rng
        if turn.step == 0 and net.units:
            net.units.learn(turn.material.data.x.to(turn.x.device))
        x = turn.x
        rebuilding = (net.draw(*self.heard(net, x, turn.y)) - net.plain(x)).square().mean()
        turn.descend("reconstruction", rebuilding)
        told = {"reconstruction": rebuilding}

        style, guess = net.code(x)  # with the weights that rebuilding left
        part = turn.y if isinstance(self.labels, Placed) else None
        drawn = self.prior.draw(rng.fold("prior"), part)
        contests: list[_Contest] = [(_beside(net, part), drawn, style)]
        if net.critic_of_guesses:
            one_hot = Categorical(classes=net.heads.guess).draw(rng.fold("class"))
            contests.append((net.critic_of_guesses, one_hot, guess.softmax(1)))
        told["critic"] = _told_apart(contests)
        turn.descend("critic", told["critic"] + self._smoothness(contests, turn))
        told["encoder"] = _deceived(contests)
        turn.descend("encoder", told["encoder"])

        if isinstance(self.labels, Guessed):
            told["labels"] = self._taught(net, turn, self.labels)
            turn.descend("labels", told["labels"])
        return {name: loss.detach() for name, loss in told.items()}

    def _smoothness(self, contests: Sequence[_Contest], turn: Turn) -> Tensor:
        """The penalties of all critics, each as many times as heavy as it is seldom."""
        due = [penalty for penalty in self.penalties if turn.step % penalty.every == 0]
        parts = [
            penalty.every * penalty(judge, drawn, coded, turn.rng.fold(f"penalty {number}"))
            for number, (judge, drawn, coded) in enumerate(contests)
            for penalty in due
        ]
        return torch.stack(parts).sum() if parts else turn.x.new_zeros(())

    def _weights(self, net: Autoencoder, guess: Tensor, y: Tensor | None) -> Tensor:
        """What the decoder hears of the class (n k): the label, the encoder's opinion, or nothing."""
        if not net.heads.told:
            taught = not isinstance(self.labels, Guessed) or self.labels.rebuilds
            return (guess if taught else guess.detach()).softmax(1) if net.heads.guess else guess
        if y is None or (len(y) and (int(y.min()) < 0 or int(y.max()) >= net.heads.told)):
            raise InputError(f"This decoder is told the class of each row: give labels from 0 to {net.heads.told - 1}.")
        return F.one_hot(y, net.heads.told).to(guess.dtype)

    def _taught(self, net: Autoencoder, turn: Turn, labels: Guessed) -> Tensor:
        """Cross-entropy of the guess for labelled rows of the whole set, as many as the batch has."""
        known = labels.known(turn.material.data)
        picked = turn.rng.fold("labelled").integers(len(known)).cpu()
        x, y = known.x[picked].to(turn.x.device), known.y[picked].to(turn.x.device)
        guess = net.code(labels.changed(x, turn.rng.fold("labelled")))[1]
        loss = F.cross_entropy(guess, y)
        if not labels.steady:
            return loss
        with torch.no_grad():
            held = net.code(turn.x)[1].softmax(1)
        moved = net.code(labels.changed(turn.x, turn.rng.fold("steady")))[1]
        return loss + labels.steady * F.kl_div(moved.log_softmax(1), held, reduction="batchmean")

    # --- what it is good for ----------------------------------------------------------------------------------------

    def encode(self, networks: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        """The code (n dim) of inputs, and the logits (n k) of the class that is guessed; k is 0 where none is."""
        return cast(Autoencoder, networks).code(x)

    def decode(self, networks: nn.Module, style: Tensor, y: Tensor | None = None) -> Tensor:
        """Inputs (n *d) from codes (n dim) and, where the decoder hears of classes, the classes y (n,)."""
        net = cast(Autoencoder, networks)
        known = net.heads.told + net.heads.guess
        if known and (y is None or (len(y) and (int(y.min()) < 0 or int(y.max()) >= known))):
            raise InputError(f"This decoder makes inputs of a class: give one for each code, from 0 to {known - 1}.")
        weights = F.one_hot(y, known).to(style.dtype) if known and y is not None else style[:, :0]
        return net(style, weights)

    def heard(self, networks: nn.Module, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the decoder gets of inputs: their codes (n dim), and the weights of the classes (n k)."""
        net = cast(Autoencoder, networks)
        style, guess = net.code(x)
        return style, self._weights(net, guess, y)

    def reconstruct(self, networks: nn.Module, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The inputs as the autoencoder rebuilds them (n *d); only with `Told` does it ask for the labels."""
        return cast(Autoencoder, networks)(*self.heard(networks, x, y))

    def sample(self, networks: nn.Module, rng: Rng, y: Tensor | None = None) -> Tensor:
        """Inputs (n *d) from draws of the prior, of the classes y (n,) where the game is conditional; else of any."""
        net = cast(Autoencoder, networks)
        if y is not None and not self.conditional:
            raise InputError(f"Samples with labels={self.labels!r} are of no class that one could ask for: give no y.")
        if y is None and net.heads.told + net.heads.guess:
            y = rng.fold("any class").integers(net.heads.told + net.heads.guess)
        style = self.prior.draw(rng.fold("style"), y if isinstance(self.labels, Placed) else None)
        return self.decode(networks, style, y)

    def measure(self, networks: nn.Module, material: Material, seed: int) -> Measured:
        return aae_measures.measure(self, networks, material, seed)

    def show(self, networks: nn.Module, material: Material, seed: int) -> Tensor:
        return aae_pictures.by_class(self, networks, material, seed).x

    def gallery(self, networks: nn.Module, material: Material, seed: int) -> tuple[Grid | Map, ...]:
        """Samples or styles by classes, rebuilt rows, ways between rows, and the map of codes."""
        return aae_pictures.gallery(self, networks, material, seed)


_Contest = tuple[Critic, Tensor, Tensor]  # a critic, what it shall take for drawn, what it shall take for encoded


def _told_apart(contests: Sequence[_Contest]) -> Tensor:
    """What critics minimise; the encoder gets no gradient of it."""
    parts = [NonSaturating().discriminator(judge(drawn), judge(coded.detach())) for judge, drawn, coded in contests]
    return torch.stack(parts).sum()


def _deceived(contests: Sequence[_Contest]) -> Tensor:
    """What the encoder minimises: codes are to be taken for draws."""
    return torch.stack(
        [NonSaturating().generator(judge(drawn), judge(coded)) for judge, drawn, coded in contests]
    ).sum()


def _beside(net: Autoencoder, part: Tensor | None) -> Critic:
    """The critic of codes alone: where it is told the class, that stands beside, and no penalty is on it.

    The last place is for rows without a label.
    """
    if part is None:
        return net.critic
    last = net.heads.placed - 1
    place = F.one_hot(torch.where(part < 0, last, part), last + 1)
    return lambda code: net.critic(torch.cat([code, place.to(code.dtype)], 1))


CATALOGUE: tuple[type, ...] = (AAE, Rates)
