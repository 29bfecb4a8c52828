"""Threat models: what the adversary may do to an input."""

from adamant.threats.balls import L1, L2, Linf
from adamant.threats.base import Anchored, Normed, Projectable, ThreatModel
from adamant.threats.parametric import Flow, Parametric, Recolour, Spatial
from adamant.threats.pasted import Pasted
from adamant.threats.patch import Patch
from adamant.threats.perceptual import Features, Perceptual
from adamant.threats.sparse import L0
from adamant.threats.transport import Wasserstein

# What can be written as text; Perceptual holds a network, which cannot.
CATALOGUE: tuple[type, ...] = (Linf, L2, L1, L0, Patch, Spatial, Flow, Recolour, Pasted, Wasserstein)

__all__ = [
    "CATALOGUE", "L0", "L1", "L2",
    "Anchored", "Features", "Flow", "Linf", "Normed", "Parametric", "Pasted", "Patch", "Perceptual", "Projectable",
    "Recolour", "Spatial", "ThreatModel", "Wasserstein",
]  # fmt: skip
