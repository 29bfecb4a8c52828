"""Evaluation: audits, and the suites that they run."""

from adamant.evaluation.audit import Audit, Order, audit
from adamant.evaluation.corrupted import Corrupted, corrupted
from adamant.evaluation.parts import write_tables
from adamant.evaluation.shards import Shard
from adamant.evaluation.suites import AUTOATTACK, CATALOGUE, QUICK, STANDARD, STRICT, Course, Suite
from adamant.evaluation.transfer import Transfer, transfer

__all__ = [
    "AUTOATTACK",
    "CATALOGUE",
    "QUICK",
    "STANDARD",
    "STRICT",
    "Audit",
    "Corrupted",
    "Course",
    "Order",
    "Shard",
    "Suite",
    "Transfer",
    "audit",
    "corrupted",
    "transfer",
    "write_tables",
]
