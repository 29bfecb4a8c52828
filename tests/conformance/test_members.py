"""Every member keeps every promise."""

import pytest
import torch

from adamant.testing import EVERY, ONCE, cases
from tests.conformance.members import MEMBERS

CASES = [case for member in MEMBERS for case in cases(member)]
ONE_PER_THREAT = [c for c in CASES if c.dtype == torch.float32 and c.classes == 10 and len(c.shape) == 3]


def _name(value):
    return getattr(value, "name", getattr(value, "__name__", str(value)))


@pytest.mark.parametrize("promise", EVERY, ids=_name)
@pytest.mark.parametrize("case", CASES, ids=_name)
def test_promise_of_every_case(case, promise):
    promise(case)


@pytest.mark.parametrize("promise", ONCE, ids=_name)
@pytest.mark.parametrize("case", ONE_PER_THREAT, ids=_name)
def test_promise_of_every_threat(case, promise):
    promise(case)
