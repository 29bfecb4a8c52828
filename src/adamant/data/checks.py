"""Checks of arrays and labels; each failure names the file, the row and the value, and says what to do."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adamant.errors import InputError

_IMAGE = 3  # from (n h w) on, an array holds images


class Array(Protocol):
    """What the checks ask of an array of numpy, or of one that is on the disk."""

    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, rows: Any, /) -> Any: ...
    def max(self) -> Any: ...


def numeric(array: Array, where: str) -> None:
    """Raises `InputError` for arrays of objects, text or complex numbers."""
    if array.dtype.kind not in "buif":
        raise InputError(f"{where} has dtype {array.dtype}; save it as numbers (uint8, integers or floats).")


def inputs(array: Array, rows: NDArray[np.int64], where: str) -> Tensor:
    """Rows (m,) of an array (n *d), as float32: images (n h w), (n h w c) as (m c h w) in [0, 1], vectors (n d) raw.

    Bytes are divided by 255, and so are other integers between 0 and 255 that stand for images.
    Raises `InputError` for NaN, infinities, and images outside of [0, 1], naming the row.
    """
    numeric(array, where)
    ndim = len(array.shape)
    if ndim < 2 or 0 in array.shape[1:] or ndim > 4:
        raise InputError(f"{where} has shape {array.shape}; give (n, d), (n, h, w), (n, h, w, c) or (n, c, h, w).")
    images = ndim >= _IMAGE
    taken = _channels_first(array[rows], where)
    if array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(taken)).float().div_(255)
    x = torch.from_numpy(np.ascontiguousarray(taken, dtype=np.float32))
    _finite(x, rows, where)
    if images:
        whole = array.dtype.kind in "iu"
        _within(x, rows, where, high=255 if whole else 1)
        return x.div_(255) if whole and array.max() > 1 else x
    return x


def _channels_first(array: NDArray[Any], where: str) -> NDArray[Any]:
    if array.ndim == _IMAGE:
        return array[:, None]
    if array.ndim != 4:
        return array
    if array.shape[3] in (1, 3, 4):  # the Keras layout goes first where both would do
        return array.transpose(0, 3, 1, 2)
    if array.shape[1] in (1, 3, 4):
        return array
    raise InputError(f"{where} has shape {array.shape}; images have 1, 3 or 4 channels, last (Keras) or first (torch).")


def _finite(x: Tensor, rows: NDArray[np.int64], where: str) -> None:
    odd = (~x.isfinite()).flatten(1).any(1).nonzero()
    if len(odd):
        row = int(odd[0])
        value = x[row][~x[row].isfinite()][0].item()
        raise InputError(f"{where}: row {rows[row]} holds {value}; mend or drop the row.")


def _within(x: Tensor, rows: NDArray[np.int64], where: str, *, high: int) -> None:
    odd = ((x < 0) | (x > high)).flatten(1).any(1).nonzero()
    if not len(odd):
        return
    row = int(odd[0])
    value = x[row][(x[row] < 0) | (x[row] > high)][0].item()
    if x.min() < 0:
        advice = "give the images as they were before they were normalised, and mean and std to the model"
    else:
        advice = "divide them by 255" if x.max() <= 255 else f"divide them by their largest value, {x.max().item():g}"
    raise InputError(f"{where}: row {rows[row]} holds {value:g}, outside of [0, {high}]; {advice}.")


def labels(array: NDArray[Any], count: int | None, where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels (n,), (n, 1) or one-hot (n, k) as int64 (n,), with a note where they were one-hot.

    Raises `InputError` for labels that are not whole numbers from 0 on, or not as many as there are inputs (`count`).
    """
    if array.dtype.kind not in "buif":
        raise InputError(f"{where} has dtype {array.dtype}; save the labels as whole numbers from 0 on.")
    if count is not None and (array.ndim == 0 or len(array) != count):
        found = len(array) if array.ndim else "one number"
        raise InputError(f"{where} has {found} labels for {count} inputs; give one label for each input.")
    notes: tuple[str, ...] = ()
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2:
        array, notes = _one_hot(array, where), (f"{where} was one-hot; the labels are the places of the ones.",)
    if array.ndim != 1:
        raise InputError(f"{where} has shape {array.shape}; give one whole number for each input, (n,).")
    if array.dtype.kind == "f":
        odd = np.flatnonzero(~np.isfinite(array) | (array != np.floor(array)))
        row = int(odd[0]) if len(odd) else 0
        value = array[row] if len(array) else "empty"
        raise InputError(f"{where} has dtype {array.dtype} (row {row} is {value}); save the labels as whole numbers.")
    y = array.astype(np.int64)
    bad = np.flatnonzero(y < 0)
    if len(bad):
        raise InputError(f"{where}: row {bad[0]} has label {y[bad[0]]}; classes are numbered from 0 on.")
    return y, notes


def _one_hot(array: NDArray[Any], where: str) -> NDArray[np.int64]:
    bad = np.flatnonzero(((array != 0) & (array != 1)).any(1) | (array.sum(1) != 1))
    if len(bad):
        raise InputError(
            f"{where}: row {bad[0]} is {array[bad[0]].tolist()}, which is neither one label nor one-hot; "
            "give one whole number for each input."
        )
    return array.argmax(1).astype(np.int64)
