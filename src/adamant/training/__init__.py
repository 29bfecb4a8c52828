"""Training: one step, many recipes."""

from adamant.runtime.average import EMA, SWA
from adamant.runtime.loop import Report
from adamant.runtime.optimizers import SGD, Adam
from adamant.training import recipes
from adamant.training.fit import fit
from adamant.training.guards import Collapse
from adamant.training.plan import Plan
from adamant.training.recipes import Recipe
from adamant.training.step import Job
from adamant.training.weights import AWP, SAM

__all__ = ["AWP", "EMA", "SAM", "SGD", "SWA", "Adam", "Collapse", "Job", "Plan", "Recipe", "Report", "fit", "recipes"]
