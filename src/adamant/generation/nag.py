"""NAG: a generator of changes that fool a model on whatever they are added to, and that differ from one another.

What it learns is attacked with by the attack of the same name (`adamant.attacks.NAG`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adamant._types import Logits
from adamant.calling import untouched
from adamant.errors import InputError
from adamant.generation.base import Material, Measured, Shape, Turn
from adamant.generation.pictures import COLUMNS
from adamant.generation.victim import ask, check_victim, errs, goal_of, leave, victim
from adamant.models.generators import Changes, Outline, build_changes, changed, described, draw
from adamant.runtime.average import Average

_DRAWS = 4  # of the changes that a measurement tries


def alike(a: Logits, b: Logits) -> Tensor:
    """Mean cosine of the answers to two changes of the same rows, the mean of each answer's logits taken off; (n,)."""
    a, b = (v - v.mean(1, keepdim=True) for v in (a, b))
    return F.cosine_similarity(a, b, dim=1)


@final
@dataclass(frozen=True, kw_only=True)
class NAG:
    """L = E max(Z_y - max_{j != y} Z_j, -confidence) + diversity E cos(Z(x + G(u)), Z(x + G(v))), u and v noise.

    After Mopuri et al., 2018, arXiv:1712.03390, with a margin on logits in place of their -log(1 - p_y), and the cosine
    between logits: both keep a slope where the model is sure. The generator never sees an input, so each of its changes
    is a universal one. With diversity=0 it learns one good change, however it is asked.
    """

    confidence: float = 5.0
    diversity: float = 5.0
    noise: int = 10  # numbers that a change is drawn from
    rate: float = 1e-3
    wide: int = 16
    toward: int | None = None
    average: Average | None = None
    averaged: ClassVar[tuple[str, ...]] = ("generator",)

    def check(self, material: Material) -> None:
        """Raise InputError without a model to attack, a budget or labels."""
        check_victim(material, self.toward)
        if self.noise < 1:
            raise InputError(f"noise is {self.noise}: give how many numbers a change is drawn from, from 1 on.")

    def build(self, shape: Shape, classes: int, seed: int) -> nn.Module:
        outline = Outline(shape=shape, noise=self.noise, wide=self.wide)
        return nn.ModuleDict({"generator": build_changes(outline, seed)})

    def players(self, networks: nn.Module) -> dict[str, torch.optim.Optimizer]:
        return {"generator": torch.optim.Adam(networks.parameters(), self.rate, betas=(0.5, 0.99))}

    def update(self, networks: nn.Module, turn: Turn) -> dict[str, Tensor]:
        model, threat = victim(turn.material)
        generator, goal = networks.get_submodule("generator"), goal_of(turn.y, self.toward)
        noise = turn.rng.fold("change").uniform(self.noise, dtype=turn.x.dtype) * 2 - 1
        with untouched(model, seed=turn.step):
            logits, others = (ask(model, changed(generator, turn.x, threat, u)) for u in (noise, noise.roll(1, 0)))
            fooling = (leave(logits, goal, self.confidence) + leave(others, goal, self.confidence)).mean() / 2
            with torch.no_grad():
                before = ask(model, turn.x)
            sameness = alike(logits - before, others - before).mean()
            turn.descend("generator", fooling + self.diversity * sameness)
        return {"adversarial": fooling.detach(), "sameness": sameness.detach()}

    def measure(self, networks: nn.Module, material: Material, seed: int) -> Measured:
        _, threat = victim(material)
        net = cast(Changes, networks.get_submodule("generator"))
        noise = [draw(net, i).to(next(net.parameters())) for i in range(_DRAWS)]
        found = [errs(material, self.toward, lambda x, u=u: changed(net, x, threat, u)) for u in noise]
        made = torch.cat([net(u).flatten(1) for u in noise])
        pairs = F.cosine_similarity(made[:-1], made[1:], dim=1).mean()
        fooled, size = (sum(values) / _DRAWS for values in zip(*found, strict=True))
        return Measured(score=fooled, figures={"fooled": fooled, "l2": size, "cosine": float(pairs)})

    def show(self, networks: nn.Module, material: Material, seed: int) -> Tensor:
        """Ten validation rows, each under another change."""
        _, threat = victim(material)
        net = cast(Changes, networks.get_submodule("generator"))
        like = next(net.parameters())
        x = material.validation.x[:COLUMNS].to(like)
        return changed(net, x, threat, torch.cat([draw(net, i) for i in range(len(x))]).to(like))

    def outline(self, networks: nn.Module) -> dict[str, Any]:
        """What the file says of the generator, for the attack that asks it."""
        return described(cast(Changes, networks.get_submodule("generator")))
