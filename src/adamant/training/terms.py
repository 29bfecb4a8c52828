"""Terms of cheap and adaptive training: gradients that agree, answers that stay together, rows that still have to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from adamant._types import Scores
from adamant.batch import per_row
from adamant.training.outer import CE
from adamant.training.points import noise
from adamant.training.views import Views, wide


@final
@dataclass(frozen=True)
class Misaligned:
    """1 - the cosine between the input gradients of the log loss at a view and at the view plus uniform noise.

    GradAlign (Andriushchenko & Flammarion, 2020, arXiv:2007.02617): where the two agree, one step goes where many
    would. Rows in which a gradient is zero count as aligned. Differentiates twice: two gradients of 3 passes each on
    top of the forward and backward of the view, and as much once more for the noisy point.
    """

    view: str = "clean"

    @property
    def views(self) -> tuple[str, ...]:
        return (self.view,)

    @property
    def slopes(self) -> tuple[str, ...]:
        return (self.view,)

    @property
    def passes(self) -> int:
        return 9

    def __call__(self, views: Views) -> Scores:
        here = views.slope(self.view, views.log_loss(views.logits(self.view)))
        beside = noise(views.threat, views.inputs[self.view].detach(), views.rng.fold("align")).requires_grad_()
        loss = views.log_loss(wide(views.model(beside)))
        there = torch.autograd.grad(loss.sum(), beside, create_graph=True)[0]
        a, b = (_sized(g) for g in (here, there))
        lengths = a.norm(dim=1) * b.norm(dim=1)
        cosine = (a * b).sum(1) / lengths.clamp_min(torch.finfo(a.dtype).tiny)
        return torch.where(lengths > 0, 1 - cosine, 0.0)

    def __str__(self) -> str:
        return f"(1 - cos(grad CE({self.view}), grad CE({self.view} + noise)))"


def _sized(g: Tensor) -> Tensor:
    """Flat and at a safe scale: squares of tiny gradients vanish in float32."""
    largest = g.detach().flatten(1).abs().amax(1).clamp_min(torch.finfo(g.dtype).tiny)
    return (g / per_row(largest, g)).flatten(1)


@final
@dataclass(frozen=True)
class Apart:
    """Squared distance between the probabilities of two views (GAT, arXiv:2011.14969)."""

    one: str
    other: str

    @property
    def views(self) -> tuple[str, ...]:
        return (self.one, self.other)

    def __call__(self, views: Views) -> Scores:
        return (views.logits(self.one).softmax(1) - views.logits(self.other).softmax(1)).square().sum(1)

    def __str__(self) -> str:
        return f"||p({self.one}) - p({self.other})||^2"


@final
@dataclass(frozen=True)
class Nuclear:
    """The sum of the singular values of the batch's difference of logits between two views, for each row its share.

    NuAT (Sriramanan et al., 2021, "Towards Efficient and Effective Adversarial Training", NeurIPS): one number of the
    whole batch, so the loss of a row depends on its neighbours.
    """

    one: str
    other: str

    @property
    def views(self) -> tuple[str, ...]:
        return (self.one, self.other)

    def __call__(self, views: Views) -> Scores:
        difference = views.logits(self.one) - views.logits(self.other)
        whole = torch.linalg.matrix_norm(difference, "nuc")
        return (whole / len(difference)).expand(len(difference))

    def __str__(self) -> str:
        return f"||f({self.one}) - f({self.other})||_nuc / n"


@final
@dataclass(frozen=True)
class Hinged:
    """Cross-entropy on a view, of the rows that the view moved or the model has wrong; nothing for the others.

    With `AtMargin` these are the rows whose margin is still too small (MMA, arXiv:1812.02637).
    """

    view: str = "adv"

    @property
    def views(self) -> tuple[str, ...]:
        return ("clean", self.view)

    def __call__(self, views: Views) -> Scores:
        moved = (views.inputs[self.view] != views.inputs["clean"]).flatten(1).any(1)
        wrong = views.logits("clean").argmax(1) != views.label
        return CE(self.view)(views) * (moved | wrong)

    def __str__(self) -> str:
        return f"CE({self.view})[margin too small]"


CATALOGUE: tuple[type, ...] = (Misaligned, Apart, Nuclear, Hinged)
