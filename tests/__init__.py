"""The tests; `shapes` is named by the settings of pytest, and looked up here."""

from tests import shapes

__all__ = ["shapes"]
