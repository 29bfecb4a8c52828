"""What an attack climbs: one number per row, larger is worse for the model; the goal carries the sign."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from adamant._types import Labels, Logits, Scores
from adamant.errors import InputError
from adamant.goals import Diverge, Goal, Targeted


@runtime_checkable
class Loss(Protocol):
    """(logits, goal) -> one score per row, or several, (n, m); computed in float32 or better."""

    def __call__(self, logits: Logits, goal: Goal) -> Tensor: ...


def _wide(logits: Logits) -> Logits:
    return logits if logits.dtype == torch.float64 else logits.float()


def _pick(logits: Logits, classes: Labels) -> Scores:
    return logits.gather(1, classes[:, None]).squeeze(1)


def _best_other(logits: Logits, classes: Labels) -> Scores:
    return logits.scatter(1, classes[:, None], -torch.inf).amax(1)


@final
@dataclass(frozen=True)
class CrossEntropy:
    """Log loss of the label (untargeted), or the log probability of the target.

    Logits of a row that spread further than `spread` (their standard deviation) are scaled down to it: where they are
    so large that the probability of the label rounds to one, there is no gradient.
    """

    spread: float = math.inf

    def __call__(self, logits: Logits, goal: Goal) -> Scores:
        logits = _wide(logits)
        if self.spread < math.inf:
            logits = logits * (self.spread / logits.detach().std(1, keepdim=True)).clamp(max=1.0).nan_to_num(1.0)
        if isinstance(goal, Targeted):
            return -F.cross_entropy(logits, goal.target, reduction="none")
        return F.cross_entropy(logits, goal.anchor, reduction="none")


@final
@dataclass(frozen=True)
class Margin:
    """Best other logit minus the label's (Carlini & Wagner, 2017, arXiv:1608.04644); positive when fooled.

    Targeted: the target's logit minus the best other.
    """

    def __call__(self, logits: Logits, goal: Goal) -> Scores:
        logits = _wide(logits)
        if isinstance(goal, Targeted):
            return _pick(logits, goal.target) - _best_other(logits, goal.target)
        return _best_other(logits, goal.anchor) - _pick(logits, goal.anchor)


@final
@dataclass(frozen=True)
class Margins:
    """The margins of the `top` likeliest other classes over the label's, nearest first: several scores for each row.

    Targeted: those of the target over the others, least first.
    """

    top: int | None = None  # all

    def __call__(self, logits: Logits, goal: Goal) -> Tensor:
        logits = _wide(logits)
        own = goal.target if isinstance(goal, Targeted) else goal.anchor
        others = logits.scatter(1, own[:, None], -torch.inf)
        most = logits.shape[1] - 1
        ranked = others.topk(min(self.top or most, most), dim=1).values - _pick(logits, own)[:, None]
        return -ranked if isinstance(goal, Targeted) else ranked


@final
@dataclass(frozen=True)
class DLR:
    """Difference of logits ratio (Croce & Hein, 2020, arXiv:2003.01690): a margin free of shift and scale.

    Needs three classes, targeted four: with fewer its denominator is not defined.
    """

    def __call__(self, logits: Logits, goal: Goal) -> Scores:
        logits, needed = _wide(logits), 4 if isinstance(goal, Targeted) else 3
        if logits.shape[1] < needed:
            raise InputError(
                f"DLR needs {needed} classes for this goal, the model has {logits.shape[1]}: use Margin()."
            )
        top = logits.sort(1, descending=True).values
        if isinstance(goal, Targeted):
            gap = _pick(logits, goal.target) - _pick(logits, goal.label)
            return gap / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2).clamp_min(1e-12)
        gap = _best_other(logits, goal.anchor) - _pick(logits, goal.anchor)
        return gap / (top[:, 0] - top[:, 2]).clamp_min(1e-12)


@final
@dataclass(frozen=True)
class KL:
    """Divergence from the model's own reference probabilities, KL(reference || now) (TRADES, arXiv:1901.08573)."""

    def __call__(self, logits: Logits, goal: Goal) -> Scores:
        if not isinstance(goal, Diverge):
            raise InputError(
                f"KL measures from reference logits, and {type(goal).__name__} has none: use Diverge(logits)."
            )
        reference = _wide(goal.reference).log_softmax(1)
        return F.kl_div(_wide(logits).log_softmax(1), reference, reduction="none", log_target=True).sum(1)


CATALOGUE: tuple[type, ...] = (CrossEntropy, Margin, Margins, DLR, KL)
