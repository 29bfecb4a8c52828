"""AdvGAN: a generator learns to change inputs so that a model errs, and a discriminator keeps the changes small to see.

What it learns is attacked with by the attack of the same name (`adamant.attacks.AdvGAN`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adamant._types import Inputs, Logits, Scores
from adamant.access import Access, LabelsOnly, ScoresOnly
from adamant.calling import untouched
from adamant.errors import InputError
from adamant.generation.base import Material, Measured, Shape, Turn
from adamant.generation.losses import NonSaturating
from adamant.generation.nets import DCGAN, Dense, Discriminator, fitting
from adamant.generation.pictures import COLUMNS, below
from adamant.generation.victim import answers, ask, check_victim, errs, goal_of, leave, victim
from adamant.losses import Loss as AttackLoss
from adamant.losses import Margin
from adamant.models.generators import Changes, Outline, build_changes, changed, described
from adamant.models.init import materialise
from adamant.models.zoo import build
from adamant.runtime.average import Average
from adamant.shards import Shard

_REALISM = NonSaturating()


@final
@dataclass(frozen=True, kw_only=True)
class Small:
    """max(0, ||z - x||_2 - bound), the soft hinge on the size of a change: only what is beyond the bound costs."""

    bound: float = 0.0  # L2, in units of the input
    weight: float = 0.03

    def __call__(self, z: Inputs, x: Inputs) -> Scores:
        return F.relu((z - x).flatten(1).square().sum(1).clamp_min(1e-20).sqrt() - self.bound)


@final
@dataclass(frozen=True, kw_only=True)
class Distilled:
    """The model is a black box: a surrogate learns its answers, by turns with the generator, which attacks it.

    Dynamic distillation (Xiao et al., 2018, arXiv:1801.02610, 4.3): -sum b(x) log f(x) on the inputs and on the changed
    ones of the moment, b the model's probabilities by `ScoresOnly()`, or its label alone by `LabelsOnly()`. Each step
    asks the model about two inputs for each row of the batch.
    """

    surrogate: str = "zoo:cnn"
    access: Access = ScoresOnly()
    rate: float = 1e-3

    def __call__(self, ours: Logits, said: Tensor) -> Scores:
        """The cross-entropy of the surrogate's logits against the model's answer (n k), probabilities."""
        return -(said * ours.float().log_softmax(1)).sum(1)

    def ask(self, networks: nn.Module, material: Material, x: Inputs) -> Tensor:
        """The model's answer as probabilities, with its cost in the books."""
        logits = answers(material, x, self.access)
        cast(Queries, networks.get_submodule("queries")).count += len(x) * Shard.here().world  # all have as many rows
        return logits if isinstance(self.access, LabelsOnly) else logits.float().softmax(1)


@final
class Queries(nn.Module):
    """How many inputs the model was asked about while the game was played; those of measurements come on top."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Tensor
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def preset(self) -> None:
        """Nothing has been asked."""
        self.count.zero_()


@final
@dataclass(frozen=True, kw_only=True)
class AdvGAN:
    """L = E max(Z_y - max_{j != y} Z_j, -confidence) + realism E sp(-D(z)) + weight E max(0, ||z - x||_2 - bound).

    Xiao et al., 2018, arXiv:1801.02610: z = x + G(x), put inside the threat model by its own projection, Z the logits
    of the attacked model (never its probabilities, whose slope vanishes where it is sure), D the discriminator's logit.
    Another `loss` stands for the margin: `CrossEntropy()` attends to the rows near the boundary, which is what a robust
    model leaves to attend to. `toward` is a class that all inputs are to be taken for; None: any wrong one. The model
    is asked in eval mode, and no gradient by its weights is ever computed.
    """

    confidence: float = 5.0
    realism: float = 0.1
    small: Small | None = Small()
    rate: float = 1e-3
    loss: AttackLoss = Margin()
    toward: int | None = None
    distilled: Distilled | None = None
    average: Average | None = None
    averaged: ClassVar[tuple[str, ...]] = ("generator",)

    def check(self, material: Material) -> None:
        """Raise InputError without a model to attack, a budget or labels."""
        check_victim(material, self.toward)
        if self.distilled is not None and not isinstance(self.distilled.access, (ScoresOnly, LabelsOnly)):
            raise InputError(
                f"A black box shows scores or labels, and {self.distilled.access!r} is neither: take ScoresOnly() or "
                "LabelsOnly()."
            )

    def build(self, shape: Shape, classes: int, seed: int) -> nn.Module:
        outline = Outline(shape=shape)
        nets = fitting(shape)
        nets = replace(nets, wide=outline.wide if isinstance(nets, DCGAN) else 4 * outline.wide)
        parts: dict[str, nn.Module] = {
            "generator": build_changes(outline, seed),
            "discriminator": materialise(lambda: _critic(nets, shape), seed + 1),
        }
        if self.distilled:
            parts["surrogate"] = build(self.distilled.surrogate, shape=shape, classes=classes, seed=seed + 2)
            parts["queries"] = Queries()
        return nn.ModuleDict(parts)

    def players(self, networks: nn.Module) -> dict[str, torch.optim.Optimizer]:
        rates = {"generator": self.rate, "discriminator": self.rate}
        if self.distilled:
            rates["surrogate"] = self.distilled.rate
        return {
            name: torch.optim.Adam(networks.get_submodule(name).parameters(), rate, betas=(0.5, 0.99))
            for name, rate in rates.items()
        }

    def update(self, networks: nn.Module, turn: Turn) -> dict[str, Tensor]:
        model, threat = victim(turn.material)
        critic, losses = networks.get_submodule("discriminator"), dict[str, Tensor]()
        made = changed(networks.get_submodule("generator"), turn.x, threat)
        if self.realism:
            losses["discriminator"] = _REALISM.discriminator(critic(turn.x), critic(made.detach()))
            turn.descend("discriminator", losses["discriminator"])
        if self.distilled:
            model, losses["surrogate"] = networks.get_submodule("surrogate"), self._distil(networks, turn, made)
        with untouched(model, seed=turn.step):
            goal = goal_of(turn.y, self.toward)
            losses["adversarial"] = leave(ask(model, made), goal, self.confidence, self.loss).mean()
            loss = losses["adversarial"]
            if self.realism:
                fake = critic(made)
                losses["realism"] = _REALISM.generator(fake, fake)
                loss = loss + self.realism * losses["realism"]
            if self.small:
                losses["size"] = self.small(made, turn.x).mean()
                loss = loss + self.small.weight * losses["size"]
            turn.descend("generator", loss)
        return {name: value.detach() for name, value in losses.items()}

    def _distil(self, networks: nn.Module, turn: Turn, made: Inputs) -> Tensor:
        """One step of the surrogate, on the inputs and on what the generator makes of them now."""
        assert self.distilled
        both = torch.cat([turn.x, made.detach()])
        said = self.distilled.ask(networks, turn.material, both)
        loss = 2 * self.distilled(networks.get_submodule("surrogate")(both), said).mean()  # of two sets of one size
        turn.descend("surrogate", loss)
        return loss

    def measure(self, networks: nn.Module, material: Material, seed: int) -> Measured:
        _, threat = victim(material)
        generator = networks.get_submodule("generator")
        wrong, size = errs(material, self.toward, lambda x: changed(generator, x, threat))
        figures = {"fooled": wrong, "l2": size}
        if self.distilled:
            figures["queries"] = float(cast(Queries, networks.get_submodule("queries")).count)
        return Measured(score=wrong, figures=figures)

    def show(self, networks: nn.Module, material: Material, seed: int) -> Tensor:
        """Ten validation rows, and below each what becomes of it."""
        _, threat = victim(material)
        generator = cast(Changes, networks.get_submodule("generator"))
        x = material.validation.x[:COLUMNS].to(next(generator.parameters()).device)
        return below(x, changed(generator, x, threat)).x

    def outline(self, networks: nn.Module) -> dict[str, Any]:
        """What the file says of the generator, for the attack that asks it."""
        return described(cast(Changes, networks.get_submodule("generator")))


def _critic(nets: DCGAN | Dense, shape: Shape) -> Discriminator:
    _, look, features = nets.parts(shape, 1)
    return Discriminator(look, features, None, 0)
