"""Every member keeps every promise."""

import pytest
import torch

from adamant.adversary import Minimal, leaves
from adamant.testing import EVERY, ONCE, cases
from adamant.testing.conformance import finds_a_small_change
from tests.conformance.members import MEMBERS

CASES = [case for member in MEMBERS for case in cases(member)]
# Only attacks that seek the smallest change promise one.
PAIRS = [
    (case, promise)
    for case in CASES
    for promise in EVERY
    if promise is not finds_a_small_change or all(isinstance(a, Minimal) for a in leaves(case.member.attack))
]
ONE_PER_THREAT = [c for c in CASES if c.dtype == torch.float32 and c.classes == 10 and len(c.shape) == 3]


def _name(value):
    return getattr(value, "name", getattr(value, "__name__", str(value)))


@pytest.mark.parametrize(("case", "promise"), PAIRS, ids=_name)
def test_promise_of_every_case(case, promise):
    promise(case)


@pytest.mark.parametrize("promise", ONCE, ids=_name)
@pytest.mark.parametrize("case", ONE_PER_THREAT, ids=_name)
def test_promise_of_every_threat(case, promise):
    promise(case)
