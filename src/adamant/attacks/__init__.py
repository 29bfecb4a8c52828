"""Attacks: records of settings with two short functions each; the engine runs them."""

from adamant.attacks.composites import EachTarget, Restarts, Union
from adamant.attacks.ddn import DDN
from adamant.attacks.deepfool import DeepFool
from adamant.attacks.gradient import BIM, FGM, FGSM, MIFGSM, PGD, RFGSM
from adamant.attacks.search import Draws, RandomSearch
from adamant.attacks.starts import Anywhere, Here, Near

__all__ = [
    "BIM", "DDN", "FGM", "FGSM", "MIFGSM", "PGD", "RFGSM",
    "Anywhere", "DeepFool", "Draws", "EachTarget", "Here", "Near", "RandomSearch", "Restarts", "Union",
]  # fmt: skip
