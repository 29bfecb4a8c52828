"""For those who write attacks: the conformance suite, and networks whose right answer is known."""

from adamant.testing.conformance import EVERY, ONCE, Case, Member, cases, check
from adamant.testing.oracles import Affine, Bent, best_margin

__all__ = ["EVERY", "ONCE", "Affine", "Bent", "Case", "Member", "best_margin", "cases", "check"]
