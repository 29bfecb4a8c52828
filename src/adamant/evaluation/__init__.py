"""Evaluation: audits, and the suites that they run."""

from adamant.evaluation.audit import Audit, Order, audit
from adamant.evaluation.compare import Comparison, Pair, Side, Standing, Worst, compare
from adamant.evaluation.corrupted import Corrupted, corrupted
from adamant.evaluation.counting import Paired
from adamant.evaluation.parts import write_tables
from adamant.evaluation.suites import AUTOATTACK, CATALOGUE, QUICK, STANDARD, STRICT, Course, Suite
from adamant.evaluation.transfer import Transfer, transfer
from adamant.shards import Shard

__all__ = [
    "AUTOATTACK",
    "CATALOGUE",
    "QUICK",
    "STANDARD",
    "STRICT",
    "Audit",
    "Comparison",
    "Corrupted",
    "Course",
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
    "transfer",
    "write_tables",
]
