"""Mix: real rows with made ones beside them, for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from adamant.data.dataset import DataSet
from adamant.errors import InputError


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Mix:
    """Real rows, and rows from any generator that take `share` of every batch (Gowal et al., 2021, arXiv:2110.09468).

    Validation rows are taken from the real ones alone.
    """

    real: DataSet
    generated: DataSet
    share: float = 0.5

    def check(self) -> None:
        """Raise InputError where the two are not alike, or the share is none."""
        if not 0 < self.share < 1:
            raise InputError(f"The share of generated rows is between 0 and 1, got {self.share}.")
        if self.real.x.shape[1:] != self.generated.x.shape[1:]:
            raise InputError(
                f"Generated rows of shape {tuple(self.generated.x.shape[1:])} cannot stand beside real ones of shape "
                f"{tuple(self.real.x.shape[1:])}."
            )
        if len(self.generated) and int(self.generated.y.max()) >= len(self.real.classes):
            raise InputError(
                f"Generated rows have label {int(self.generated.y.max())}, and the real ones know "
                f"{len(self.real.classes)} classes."
            )
