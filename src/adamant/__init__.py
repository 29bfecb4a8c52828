"""adamant finds out what it takes to change a model's mind, and then makes the model adamant."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from adamant import attacks, coexist
from adamant.access import EOT, NES, SPSA, LabelsOnly, ScoresOnly, WhiteBox
from adamant.adversary import Outcome, Status
from adamant.attacks import *  # noqa: F403
from adamant.calling import Settings
from adamant.errors import AdamantError
from adamant.losses import DLR, KL, CrossEntropy, Margin, Margins
from adamant.threats import L0, L1, L2, Features, Flow, Linf, Pasted, Patch, Perceptual, Recolour, Spatial, Wasserstein
from adamant.variety import Varied

if TYPE_CHECKING:
    from adamant.api import attack, audit, train
    from adamant.data import load_data
    from adamant.models import load_model, save_model
    from adamant.report import write_page
    from adamant.training import recipes

__version__ = "0.1.0"

coexist.watch()

__all__ = [
    "DLR", "EOT", "KL", "L0", "L1", "L2", "NES", "SPSA", "AdamantError", "CrossEntropy", "Features", "Flow",
    "LabelsOnly", "Linf", "Margin", "Margins", "Outcome", "Pasted", "Patch", "Perceptual", "Recolour", "ScoresOnly",
    "Settings", "Spatial", "Status", "Varied", "Wasserstein", "WhiteBox", "attack", "audit", "load_data", "load_model",
    "recipes", "save_model", "train", "write_page",
]  # fmt: skip
__all__ += attacks.__all__

# What needs more than torch is imported when it is first asked for.
_LATER = {
    "attack": "adamant.api",
    "audit": "adamant.api",
    "train": "adamant.api",
    "load_data": "adamant.data",
    "load_model": "adamant.models",
    "save_model": "adamant.models",
    "write_page": "adamant.report",
    "recipes": "adamant.training",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'adamant' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
