"""Recipes: these functions write the known ones, family by family."""

from collections.abc import Callable

from adamant.training.recipes import cheap, classic, curricula, regularised
from adamant.training.recipes.base import Recipe
from adamant.training.recipes.cheap import fast, free, gat, gradalign, nfgsm, nuat, prior
from adamant.training.recipes.classic import augmented, madry, mixed, standard
from adamant.training.recipes.curricula import curriculum, fat, iaat, mma
from adamant.training.recipes.regularised import trades

CATALOGUE: tuple[Callable[..., Recipe], ...] = (
    *classic.CATALOGUE,
    *cheap.CATALOGUE,
    *curricula.CATALOGUE,
    *regularised.CATALOGUE,
)

__all__ = [
    "CATALOGUE", "Recipe", "augmented", "curriculum", "fast", "fat", "free", "gat", "gradalign", "iaat", "madry",
    "mixed", "mma", "nfgsm", "nuat", "prior", "standard", "trades",
]  # fmt: skip
