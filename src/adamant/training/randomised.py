"""Parts for models that are to be smoothed: noisy views, attacks through the noise, and losses over the copies."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from adamant._types import Inputs, Logits, Scores
from adamant.access import Cost, Look, Sight, View, WhiteBox
from adamant.adversary import Attack
from adamant.goals import Untargeted
from adamant.threats import Projectable
from adamant.training.parts import Batch, Inner, Memory, attacked, passes, stronger
from adamant.training.views import Views


def copies(n: int) -> tuple[str, ...]:
    """The names of the views of n noisy copies."""
    return tuple(f"noisy{i}" for i in range(n))


def _noise(batch: Batch, sigma: float, n: int) -> Tensor:
    """(n copies, rows, *d), Gaussian; it takes inputs out of the box, as the smoothed model will see them."""
    drawn = batch.rng.fold("noise").normal(n, *batch.x.shape[1:], dtype=batch.x.dtype)
    return sigma * drawn.transpose(0, 1)


@final
@dataclass(frozen=True)
class Noisy:
    """The views `noisy0`, `noisy1` ...: the input with Gaussian noise of deviation sigma, in units of the input."""

    sigma: float
    n: int = 1

    @property
    def cost(self) -> int:
        return 0

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        return dict(zip(copies(self.n), batch.x + _noise(batch, self.sigma, self.n), strict=True))


@final
@dataclass(frozen=True)
class NoisyAscend:
    """The views `noisy0`, `noisy1` ...: the point of an attack on the mean answer over n noisy copies, with that noise.

    The attack climbs the loss of the mean probabilities, which is that of the smoothed model (Salman et al., 2019,
    arXiv:1906.04584), over the same noise at every step.
    """

    attack: Attack
    sigma: float
    n: int = 4

    @property
    def cost(self) -> int:
        return self.n * passes(self.attack)

    def stronger(self) -> Inner:
        return replace(self, attack=stronger(self.attack))

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        noise = _noise(batch, self.sigma, self.n)
        z = attacked(self.attack, model, batch, Untargeted(batch.y), threat, access=_Through(noise))
        return dict(zip(copies(self.n), z + noise, strict=True))


@final
@dataclass(frozen=True, eq=False)
class _Through:
    """Looks at the mean probabilities over given noise, as logits."""

    noise: Tensor  # (copies, rows, *d)
    gives: ClassVar[Sight] = Sight.GRADIENT
    takes: ClassVar[Sight] = Sight.GRADIENT
    exact: ClassVar[bool] = False

    def look(self, view: View, z: Inputs, *, grad: bool) -> Look:
        def smooth(z: Inputs) -> Logits:
            return mean_log([view.model(z + noise) for noise in self.noise])

        return WhiteBox().look(View(smooth, view.score, view.clip, view.free, view.rng), z, grad=grad)

    def cost(self, *, grad: bool) -> Cost:
        return Cost(len(self.noise), len(self.noise) * grad)


def mean_log(logits: list[Tensor], sharper: float = 1.0) -> Logits:
    """The logarithm of the mean probabilities; their logits times `sharper` are what the softmax is of."""
    return torch.stack([(sharper * v).log_softmax(1) for v in logits]).logsumexp(0) - math.log(len(logits))


@final
@dataclass(frozen=True)
class MeanCE:
    """Cross-entropy of the label on the mean probabilities of several views."""

    views: tuple[str, ...]

    def __call__(self, views: Views) -> Scores:
        return -mean_log([views.logits(v) for v in self.views]).gather(1, views.label[:, None]).squeeze(1)

    def __str__(self) -> str:
        return f"CE(mean p over {len(self.views)} copies)"


@final
@dataclass(frozen=True)
class FromMean:
    """How far the answers to several views are from their mean, mean KL(mean p || p(view))."""

    views: tuple[str, ...]

    def __call__(self, views: Views) -> Scores:
        logits = [views.logits(v) for v in self.views]
        mean = mean_log(logits)
        spread = mean - torch.stack([v.log_softmax(1) for v in logits]).mean(0)
        return (mean.exp() * spread).sum(1)

    def __str__(self) -> str:
        return "KL(mean p || p)"


@final
@dataclass(frozen=True)
class MeanEntropy:
    """Entropy of the mean probabilities of several views."""

    views: tuple[str, ...]

    def __call__(self, views: Views) -> Scores:
        mean = mean_log([views.logits(v) for v in self.views])
        return -(mean.exp() * mean).sum(1)

    def __str__(self) -> str:
        return "H(mean p)"


@final
@dataclass(frozen=True)
class Radius:
    """What is missing to a radius of sigma x gamma / 2, of the rows that the mean answer has right (Zhai et al., 2020).

    The radius is sigma / 2 x (quantile of the label's mean probability - that of the runner-up), of logits `sharper`
    times as large. Rows with a larger radius, or too sure to have one in float32, have no gradient and count 0.
    """

    views: tuple[str, ...]
    sigma: float
    gamma: float = 8.0
    sharper: float = 16.0

    def __call__(self, views: Views) -> Scores:
        top = mean_log([views.logits(v) for v in self.views], self.sharper).exp().topk(2, dim=1)
        with torch.no_grad():
            gap = _quantile(top.values[:, 1]) - _quantile(top.values[:, 0])
            counts = (top.indices[:, 0] == views.label) & gap.isfinite() & (gap.abs() <= self.gamma)
        held = torch.where(counts[:, None], top.values, 0.5)  # a quantile without a number has no gradient either
        missing = self.gamma + _quantile(held[:, 1]) - _quantile(held[:, 0])
        return torch.where(counts, self.sigma / 2 * missing, 0.0)

    def __str__(self) -> str:
        return f"[{self.sigma:g}/2 ({self.gamma:g} - Q(p1) + Q(p2))]"


def _quantile(p: Tensor) -> Tensor:
    """Of the standard normal."""
    return torch.special.ndtri(p)


INNERS: tuple[type, ...] = (Noisy, NoisyAscend)
CATALOGUE: tuple[type, ...] = (MeanCE, FromMean, MeanEntropy, Radius)
