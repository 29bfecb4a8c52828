"""Evaluation: audits, and the suites that they run."""

from adamant.evaluation.audit import Audit, Order, audit, identify
from adamant.evaluation.compare import Comparison, Pair, Side, Standing, Worst, compare
from adamant.evaluation.corrupted import Corrupted, corrupted
from adamant.evaluation.counting import Paired
from adamant.evaluation.course import Course, Suite
from adamant.evaluation.kept import Kept
from adamant.evaluation.parts import difference, forget_parts, write_tables
from adamant.evaluation.suites import (
    AUTOATTACK,
    CATALOGUE,
    LABELS,
    PATCH,
    QUICK,
    SCORES,
    SPATIAL,
    STANDARD,
    STRICT,
    default_suite,
)
from adamant.evaluation.transfer import Transfer, transfer
from adamant.shards import Shard

__all__ = [
    "AUTOATTACK",
    "CATALOGUE",
    "LABELS",
    "PATCH",
    "QUICK",
    "SCORES",
    "SPATIAL",
    "STANDARD",
    "STRICT",
    "Audit",
    "Comparison",
    "Corrupted",
    "Course",
    "Kept",
    "Order",
    "Pair",
    "Paired",
    "Shard",
    "Side",
    "Standing",
    "Suite",
    "Transfer",
    "Worst",
    "audit",
    "compare",
    "corrupted",
    "default_suite",
    "difference",
    "forget_parts",
    "identify",
    "transfer",
    "write_tables",
]
