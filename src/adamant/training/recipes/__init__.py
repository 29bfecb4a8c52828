"""Recipes: these functions write the known ones, family by family."""

from collections.abc import Callable

from adamant.training.recipes import cheap, classic, regularised
from adamant.training.recipes.base import Recipe
from adamant.training.recipes.cheap import fast
from adamant.training.recipes.classic import augmented, madry, mixed, standard
from adamant.training.recipes.regularised import trades

CATALOGUE: tuple[Callable[..., Recipe], ...] = (
    *classic.CATALOGUE,
    *cheap.CATALOGUE,
    *regularised.CATALOGUE,
)

__all__ = ["CATALOGUE", "Recipe", "augmented", "fast", "madry", "mixed", "standard", "trades"]
