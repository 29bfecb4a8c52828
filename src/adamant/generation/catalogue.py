"""Every game and every part of one, by the names that they are written with."""

from __future__ import annotations

from typing import Any

from adamant.access import LabelsOnly, ScoresOnly
from adamant.generation import aae, aae_labels, priors
from adamant.generation.aae import AAE
from adamant.generation.advgan import AdvGAN, Distilled, Small
from adamant.generation.gan import GAN
from adamant.generation.losses import LOSSES, PENALTIES
from adamant.generation.nag import NAG
from adamant.generation.nets import LABELS, NETS
from adamant.losses import CrossEntropy, Margin
from adamant.runtime.augment import CATALOGUE as AUGMENTS
from adamant.runtime.average import EMA

GAMES: tuple[type, ...] = (GAN, AAE, AdvGAN, NAG)
PARTS: tuple[type, ...] = (
    *LOSSES, *PENALTIES, *NETS, *LABELS, EMA, *priors.CATALOGUE, *aae_labels.CATALOGUE, *AUGMENTS, aae.Rates, Small,
    Distilled, ScoresOnly, LabelsOnly, Margin, CrossEntropy,
)  # fmt: skip


def vocabulary() -> dict[str, Any]:
    """All names that a game may be written with; a game also in lower case."""
    named = {member.__name__: member for member in (*GAMES, *PARTS)}
    return {**named, **{member.__name__.lower(): member for member in GAMES}}
