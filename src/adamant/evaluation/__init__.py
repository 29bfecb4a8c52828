"""Evaluation: audits, and the suites that they run."""

from adamant.evaluation.audit import Audit, Order, audit
from adamant.evaluation.parts import write_tables
from adamant.evaluation.suites import CATALOGUE, FULL, QUICK, STANDARD, Suite
from adamant.evaluation.transfer import Transfer, transfer

__all__ = [
    "CATALOGUE",
    "FULL",
    "QUICK",
    "STANDARD",
    "Audit",
    "Order",
    "Suite",
    "Transfer",
    "audit",
    "transfer",
    "write_tables",
]
