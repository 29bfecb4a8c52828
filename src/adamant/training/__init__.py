"""Training: one step, many recipes."""

from adamant.training import recipes
from adamant.training.average import EMA, SWA
from adamant.training.fit import Report, fit
from adamant.training.guards import Collapse
from adamant.training.plan import SGD, Adam, Plan
from adamant.training.recipes import Recipe
from adamant.training.step import Job
from adamant.training.weights import AWP, SAM

__all__ = ["AWP", "EMA", "SAM", "SGD", "SWA", "Adam", "Collapse", "Job", "Plan", "Recipe", "Report", "fit", "recipes"]
