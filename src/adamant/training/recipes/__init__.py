"""Recipes: these functions write the known ones, family by family."""

from collections.abc import Callable

from adamant.training.recipes import certified, cheap, classic, randomised, regularised
from adamant.training.recipes.base import Recipe
from adamant.training.recipes.certified import crown_ibp, ibp, mtl_ibp, sabr
from adamant.training.recipes.cheap import fast
from adamant.training.recipes.classic import augmented, madry, mixed, standard
from adamant.training.recipes.randomised import consistency, gaussian, macer, smoothadv
from adamant.training.recipes.regularised import trades

CATALOGUE: tuple[Callable[..., Recipe], ...] = (
    *classic.CATALOGUE,
    *cheap.CATALOGUE,
    *regularised.CATALOGUE,
    *certified.CATALOGUE,
    *randomised.CATALOGUE,
)

__all__ = [
    "CATALOGUE", "Recipe", "augmented", "consistency", "crown_ibp", "fast", "gaussian", "ibp", "macer", "madry",
    "mixed", "mtl_ibp", "sabr", "smoothadv", "standard", "trades",
]  # fmt: skip
