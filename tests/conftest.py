"""What every test starts from."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded():
    """Networks that a test builds with torch's own initialisation are the same on every machine and in every order."""
    torch.manual_seed(0)
