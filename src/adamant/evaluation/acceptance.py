"""The last word on a success: the stored input, asked again of the model as it is, in another company."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from adamant._types import Inputs, Labels, Logits, Mask
from adamant.adversary import Outcome
from adamant.batch import take
from adamant.calling import Caller, Settings, device_of, untouched, unwrapped
from adamant.desk import won
from adamant.goals import Untargeted
from adamant.threats import Parametric, Projectable

# A success must be won by this share of the spread of its logits: rounding on another machine must not undo it.
TOLERANCE = 1e-5
ATTEMPTS = 3  # how often rows whose success was not accepted are attacked again
_SHAPE = 16  # rows in every batch, filled up: kernels of other batch sizes may differ in the last bit


def accepted(
    model: nn.Module, threat: Projectable | Parametric, x: Inputs, y: Labels, out: Outcome, settings: Settings
) -> Mask:
    """Which broken rows (n,) hold: inside the set, finite, and wrong by the tolerance with the rows in reverse order.

    The engine has asked each of them alone already; here they are asked in batches, without autocast, from the tensor
    that is stored, and as many times as the settings have votes.
    """
    holds = torch.zeros_like(out.broken)
    rows = out.broken.nonzero().squeeze(1).flip(0)
    if not len(rows):
        return holds
    z = out.x_adv[rows]
    ayes = torch.zeros_like(rows)
    for logits in _judgements(model, z, settings, settings.votes):
        ayes += won(logits, Untargeted(y[rows]), settings.tolerance)
    held = (2 * ayes > settings.votes) & z.isfinite().flatten(1).all(1)
    if not isinstance(threat, Parametric):  # a turned picture does not show whether it is one
        held &= take(threat, rows).contains(z, x[rows])
    holds[rows] = held
    return holds


def clean(model: nn.Module, x: Inputs, y: Labels, settings: Settings) -> tuple[Logits, Mask]:
    """Which rows (n,) are wrong by most votes, and for each the logits of the first answer that says the same.

    Asked as `judged` asks. Raises InputError for labels that the model has no class for.
    """
    goal, answers = Untargeted(y), _judgements(model, x, settings, settings.votes)
    goal.check(answers[0].shape[1])
    wrongs = torch.stack([goal.reached(logits) for logits in answers])
    wrong = 2 * wrongs.sum(0) > settings.votes
    first = (wrongs == wrong).int().argmax(0)
    return torch.stack(answers)[first, torch.arange(len(x))], wrong


def judged(model: nn.Module, x: Inputs, settings: Settings) -> Logits:
    """Logits of x in batches of one size, in full precision, of the model as it was given."""
    return _judgements(model, x, settings, 1)[0]


def _judgements(model: nn.Module, x: Inputs, settings: Settings, times: int) -> list[Logits]:
    """So often, from one stream of randomness: a model that draws does not answer the same each time."""
    raw = unwrapped(model)
    caller, device = Caller(raw, replace(settings, autocast=False, lanes=_SHAPE)), device_of(raw, x)
    if settings.device:
        device = torch.device(settings.device)
    parts = x.split(_SHAPE)
    with untouched(raw), torch.no_grad():
        return [torch.cat([caller(part.to(device)).cpu() for part in parts]) for _ in range(times)]
