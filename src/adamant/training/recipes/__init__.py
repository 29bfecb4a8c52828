"""Recipes: these functions write the known ones, family by family."""

from collections.abc import Callable

from adamant.training.recipes import certified, cheap, classic, curricula, randomised, regularised, several, smooth
from adamant.training.recipes.base import Recipe
from adamant.training.recipes.certified import crown_ibp, ibp, mtl_ibp, sabr
from adamant.training.recipes.cheap import fast, free, gat, gradalign, nfgsm, nuat, prior
from adamant.training.recipes.classic import augmented, madry, mixed, standard
from adamant.training.recipes.curricula import curriculum, fat, iaat, mma
from adamant.training.recipes.randomised import consistency, gaussian, macer, smoothadv
from adamant.training.recipes.regularised import alp, distilled, mart, trades
from adamant.training.recipes.several import average, eat, maximum, msd, one_norm_per_batch, ramp
from adamant.training.recipes.smooth import cure, gradient_penalty, jacobian, llr, vat

CATALOGUE: tuple[Callable[..., Recipe], ...] = (
    *classic.CATALOGUE,
    *cheap.CATALOGUE,
    *curricula.CATALOGUE,
    *regularised.CATALOGUE,
    *smooth.CATALOGUE,
    *several.CATALOGUE,
    *certified.CATALOGUE,
    *randomised.CATALOGUE,
)

__all__ = [
    "CATALOGUE", "Recipe",
    "alp", "augmented", "average", "consistency", "crown_ibp", "cure", "curriculum", "distilled", "eat", "fast", "fat",
    "free", "gat", "gaussian", "gradalign", "gradient_penalty", "iaat", "ibp", "jacobian", "llr", "macer", "madry",
    "mart", "maximum", "mixed", "mma", "msd", "mtl_ibp", "nfgsm", "nuat", "one_norm_per_batch", "prior", "ramp",
    "sabr", "smoothadv", "standard", "trades", "vat",
]  # fmt: skip
