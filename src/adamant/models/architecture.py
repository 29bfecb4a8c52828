"""Architecture: the few words from which a network can be built again, so that a weights file explains itself."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, cast

from adamant.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How to build a network, and the normalisation of its input.

    `name` is `"zoo:NAME"` or `"package.module:callable"`, `shape` the shape of one input without the batch,
    `mean` and `std` one number for each channel (or one for all), empty for none.
    """

    name: str
    shape: tuple[int, ...]
    classes: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def to_json(architecture: Architecture) -> str:
    """The architecture as one line of JSON."""
    return json.dumps(asdict(architecture), sort_keys=True)


def from_json(text: str, *, source: str) -> Architecture:
    """The architecture that `to_json` wrote; raises `InputError` naming `source` when the text is something else."""
    try:
        held = cast(dict[str, Any], json.loads(text))
        return Architecture(
            name=str(held["name"]),
            shape=tuple(int(side) for side in held["shape"]),
            classes=int(held["classes"]),
            mean=tuple(float(v) for v in held["mean"]),
            std=tuple(float(v) for v in held["std"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"The architecture that {source} carries cannot be read ({error!r} in {text[:80]!r}); "
            'name it yourself, for example arch="zoo:cnn".'
        ) from error
