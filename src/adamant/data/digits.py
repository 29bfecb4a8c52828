"""digits: the 8x8 handwritten digits that scikit-learn carries, so that everything can be tried without a download."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from sklearn.datasets import load_digits

from adamant.data.source import ALL, Indices, Part, Source


def read_digits() -> Source:
    """1797 images (n 1 8 8) of ten classes (Alpaydin & Kaynak, 1998, doi:10.24432/C50P49): grey levels over 16."""
    held = cast(Any, load_digits())
    images = held.images.astype(np.float32)[:, None] / np.float32(16)

    def read(rows: Indices) -> torch.Tensor:
        return torch.from_numpy(images[rows])

    def keys(rows: Indices) -> list[bytes]:
        return [images[row].tobytes() for row in rows]

    part = Part(labels=held.target.astype(np.int64), read=read, keys=keys)
    return Source(name="digits", where="digits", parts={ALL: part}, classes=tuple(map(str, range(10))))
