"""Ask: what a person says of a model beside its name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What `load_model` was told: see there."""

    arch: str | None = None
    shape: tuple[int, ...] | None = None
    classes: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    trust: bool = False
