"""Recipes: these functions write the known ones, family by family."""

from collections.abc import Callable

from adamant.training.recipes import certified, cheap, classic, curricula, randomised, regularised
from adamant.training.recipes.base import Recipe
from adamant.training.recipes.certified import crown_ibp, ibp, mtl_ibp, sabr
from adamant.training.recipes.cheap import fast, free, gat, gradalign, nfgsm, nuat, prior
from adamant.training.recipes.classic import augmented, madry, mixed, standard
from adamant.training.recipes.curricula import curriculum, fat, iaat, mma
from adamant.training.recipes.randomised import consistency, gaussian, macer, smoothadv
from adamant.training.recipes.regularised import trades

CATALOGUE: tuple[Callable[..., Recipe], ...] = (
    *classic.CATALOGUE,
    *cheap.CATALOGUE,
    *curricula.CATALOGUE,
    *regularised.CATALOGUE,
    *certified.CATALOGUE,
    *randomised.CATALOGUE,
)

__all__ = [
    "CATALOGUE", "Recipe", "augmented", "consistency", "crown_ibp", "curriculum", "fast", "fat", "free", "gat",
    "gaussian", "gradalign", "iaat", "ibp", "macer", "madry", "mixed", "mma", "mtl_ibp", "nfgsm", "nuat", "prior",
    "sabr", "smoothadv", "standard", "trades",
]  # fmt: skip
