"""Attacks: records of settings with two short functions each; the engine runs them."""

from adamant.attacks.alma import ALMA
from adamant.attacks.apgd import APGD, APGDL1
from adamant.attacks.bandits import Bandits
from adamant.attacks.boundary import BoundaryAttack
from adamant.attacks.carlini import EAD, CarliniWagner, CarliniWagnerLinf
from adamant.attacks.carlini_l0 import CarliniWagnerL0
from adamant.attacks.composites import EachTarget, Restarts, Union
from adamant.attacks.cosine import CosinePGD
from adamant.attacks.ddn import DDN
from adamant.attacks.deepfool import DeepFool, SparseFool, SuperDeepFool
from adamant.attacks.fab import FAB
from adamant.attacks.fmn import FMN
from adamant.attacks.geoda import GeoDA
from adamant.attacks.gradient import BIM, FGM, FGSM, MIFGSM, NIFGSM, PGD, RFGSM, AdamPGD, FrankWolfe
from adamant.attacks.hopskipjump import HopSkipJump
from adamant.attacks.latent import LatentSearch
from adamant.attacks.learned import NAG, AdvGAN
from adamant.attacks.nearest import Insist, Nearest
from adamant.attacks.one_pixel import OnePixel
from adamant.attacks.pdpgd import PDPGD
from adamant.attacks.printable import printable
from adamant.attacks.rays import RayS
from adamant.attacks.saliency import JSMA
from adamant.attacks.search import Draws, RandomSearch
from adamant.attacks.sigma_zero import SigmaZero
from adamant.attacks.sign_opt import SignOPT
from adamant.attacks.simba import SimBA
from adamant.attacks.sparse_rs import SparseRS
from adamant.attacks.square import Square
from adamant.attacks.starts import Anywhere, Best, Diverse, Here, Near, Within
from adamant.attacks.surfree import SurFree
from adamant.attacks.universal import SameChange, universal
from adamant.attacks.variance import VMIFGSM
from adamant.attacks.zoo import ZOO

__all__ = [
    "ALMA", "APGD", "APGDL1", "BIM", "DDN", "EAD", "FAB", "FGM", "FGSM", "FMN", "JSMA", "MIFGSM", "NAG", "NIFGSM",
    "PDPGD", "PGD", "RFGSM", "VMIFGSM", "ZOO", "AdamPGD", "AdvGAN", "Anywhere", "Bandits", "Best", "BoundaryAttack",
    "CarliniWagner", "CarliniWagnerL0", "CarliniWagnerLinf", "CosinePGD", "DeepFool", "Diverse", "Draws", "EachTarget",
    "FrankWolfe", "GeoDA", "Here", "HopSkipJump", "Insist", "LatentSearch", "Near", "Nearest", "OnePixel",
    "RandomSearch", "RayS", "Restarts", "SameChange", "SigmaZero", "SignOPT", "SimBA", "SparseFool", "SparseRS",
    "Square", "SuperDeepFool", "SurFree", "Union", "Within", "printable", "universal",
]  # fmt: skip
