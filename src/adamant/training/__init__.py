"""Training: one step, many recipes."""

from adamant.training import recipes
from adamant.training.average import EMA
from adamant.training.fit import Job, Report, fit
from adamant.training.plan import SGD, Adam, Plan
from adamant.training.recipes import Recipe

__all__ = ["EMA", "SGD", "Adam", "Job", "Plan", "Recipe", "Report", "fit", "recipes"]
