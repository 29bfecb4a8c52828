"""Bounds of a model's margins within a threat model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from adamant._types import Inputs, Labels, Logits, Scores
from adamant.bounds.node import Bounded
from adamant.bounds.sets import Region
from adamant.bounds.ways import Bound, Intervals
from adamant.calling import out_of_memory, untouched, unwrapped
from adamant.errors import AdamantError, ModelError
from adamant.goals import Untargeted
from adamant.threats import Projectable


def margins(model: nn.Module, x: Inputs, y: Labels, threat: Projectable, *, bound: Bound = Intervals()) -> Logits:
    """No more than the least value, for z in the threat model around x, of logit_y(z) - logit_j(z): (n, k), 0 at y.

    The model is asked in eval mode. Where all but y are above 0, no z of the set is answered wrongly, up to rounding:
    bounds are computed in the precision of x, and are not rounded outward.
    Raises InputError for a threat model that is no ball, ModelError for a layer that bounds do not go through.
    """
    model = unwrapped(model)
    with untouched(model), torch.no_grad():
        out = bounded(model, Bounded(x, Region.around(x, threat)))
        Untargeted(y).check(out.shape[1])
        return bound(out, y)


def bounded(model: Callable[[Any], Any], node: Bounded) -> Bounded:
    """The node of the logits; raises ModelError where the model returns something else, or bounds cannot go through."""
    try:
        out = model(node)
    except AdamantError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        raise ModelError(f"Bounds cannot go through the model: it raised {type(error).__name__}: {error}") from error
    if not isinstance(out, Bounded) or out.ndim != 2:
        shape = tuple(out.shape) if isinstance(out, Bounded) else type(out).__name__
        raise ModelError(f"Bounds are of logits (rows, classes), and the model returned {shape}.")
    return out


def surest(margins: Logits, y: Labels) -> Scores:
    """The least margin over the classes other than y, (n,): above 0, the row holds."""
    return margins.scatter(1, y[:, None], torch.inf).amin(1)
