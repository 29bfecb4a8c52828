"""The doctor: is an evaluation of this model sound? Each diagnostic has an id, a threshold and a source."""

from adamant.evaluation.doctor.aftermath import aftermath
from adamant.evaluation.doctor.examine import examine
from adamant.evaluation.doctor.finding import Examination, Finding, Verdict
from adamant.evaluation.doctor.reviews import (
    best_kept,
    black_box,
    certificate,
    eight_bit,
    inside,
    paired,
    precision,
    review,
    rounded,
    sample,
)

__all__ = [
    "Examination",
    "Finding",
    "Verdict",
    "aftermath",
    "best_kept",
    "black_box",
    "certificate",
    "eight_bit",
    "examine",
    "inside",
    "paired",
    "precision",
    "review",
    "rounded",
    "sample",
]  # fmt: skip
