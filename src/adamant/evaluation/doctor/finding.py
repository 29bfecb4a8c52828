"""What an examination finds: one line per diagnostic, and what they say together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, final

# The findings that speak of masked gradients, the strongest first.
MASKING = ("D13", "D19", "D6", "D15", "D18", "D5")


class Verdict(IntEnum):
    """How a diagnostic ended, from good to bad."""

    SKIPPED = 0
    PASS = 1
    WARN = 2
    FAIL = 3


@final
@dataclass(frozen=True, kw_only=True)
class Finding:
    """One diagnostic: what was measured, in a number and in a sentence, and what to do about it."""

    id: str
    name: str
    verdict: Verdict
    number: float | None
    measured: str
    advice: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class Examination:
    """All findings, in order; and the rows and passes that they took."""

    findings: tuple[Finding, ...]
    rows: int
    forwards: int = 0  # of rows
    backwards: int = 0

    def __getitem__(self, name: str) -> Finding:
        """The finding of a diagnostic, as in found["D6"]."""
        return {f.id: f for f in self.findings}[name]

    @property
    def worst(self) -> Verdict:
        """The worst verdict among the findings."""
        return max((f.verdict for f in self.findings), default=Verdict.SKIPPED)

    @property
    def masking(self) -> tuple[Finding, ...]:
        """The findings that say that gradients mislead here, the strongest evidence first."""
        loud = {f.id: f for f in self.findings if f.verdict >= Verdict.WARN}
        return tuple(loud[name] for name in MASKING if name in loud)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        lines = [{**asdict(f), "verdict": f.verdict.name} for f in self.findings]
        return {
            "worst": self.worst.name,
            "masking": [f.id for f in self.masking],
            "rows": self.rows,
            "forwards": self.forwards,
            "backwards": self.backwards,
            "findings": lines,
        }


def graded(value: float, warn: float, fail: float | None = None) -> Verdict:
    """FAIL above `fail`, WARN above `warn`, else PASS; NaN is a FAIL."""
    if value != value or (fail is not None and value > fail):
        return Verdict.FAIL
    return Verdict.WARN if value > warn else Verdict.PASS
