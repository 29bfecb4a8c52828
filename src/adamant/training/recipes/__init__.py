"""Recipes: these functions write the known ones, family by family."""

from collections.abc import Callable

from adamant.training.recipes import cheap, classic, regularised, several, smooth
from adamant.training.recipes.base import Recipe
from adamant.training.recipes.cheap import fast
from adamant.training.recipes.classic import augmented, madry, mixed, standard
from adamant.training.recipes.regularised import alp, distilled, mart, trades
from adamant.training.recipes.several import average, eat, maximum, msd, one_norm_per_batch, ramp
from adamant.training.recipes.smooth import cure, gradient_penalty, jacobian, llr, vat

CATALOGUE: tuple[Callable[..., Recipe], ...] = (
    *classic.CATALOGUE,
    *cheap.CATALOGUE,
    *regularised.CATALOGUE,
    *smooth.CATALOGUE,
    *several.CATALOGUE,
)

__all__ = [
    "CATALOGUE", "Recipe",
    "alp", "augmented", "average", "cure", "distilled", "eat", "fast", "gradient_penalty", "jacobian", "llr", "madry",
    "mart", "maximum", "mixed", "msd", "one_norm_per_batch", "ramp", "standard", "trades", "vat",
]  # fmt: skip
