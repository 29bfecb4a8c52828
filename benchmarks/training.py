"""How robust a network can be made in so many minutes: our best recipe per data set, and how it got there.

`python benchmarks/training.py mnist` trains on the training split, chooses the best epoch on validation rows, and audits
the first --rows test rows with `standard_v1` and `strict_v1`. Against masked gradients it adds what needs none: Square
with 5000 looks alone, PGD through a softer copy of steep layers (BPDA), and the share of rows that interval bounds
prove. Accuracy over CPU seconds is printed epoch by epoch. With several --seeds, the whole is repeated.
"""

from __future__ import annotations

from dataclasses import dataclass

import adamant as am


@dataclass(frozen=True)
class Case:
    """What is trained, how, and against what."""

    data: str
    network: str
    threat: am.Linf
    recipe: am.Recipe
    plan: am.Plan
    goal: str


CASES: dict[str, Case] = {}
