"""The inputs of every row that was broken: in memory, or in a safetensors file that is read and written in pieces."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import final

import safetensors
import torch
from safetensors import SafetensorError
from torch import Tensor

from adamant.errors import RunError
from adamant.files import whole

NAMES = ("row", "adversarial", "original")
Piece = Mapping[str, Tensor]
_ROWS = 512  # of a piece
_KINDS = {torch.int64: "I64", torch.float64: "F64", torch.float32: "F32"}


@final
class Kept(Mapping[str, Tensor]):
    """`row` (m,), `original` and `adversarial` (m *d), read whole by name, or in `pieces` of a few hundred rows."""

    def __init__(self, held: Piece | Path) -> None:
        self._held = held

    def __getitem__(self, name: str) -> Tensor:
        if name not in NAMES:
            raise KeyError(name)
        if not isinstance(self._held, Path):
            return self._held[name]
        with _opened(self._held) as file:
            return file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)

    def pieces(self) -> Iterator[Piece]:
        """All rows in order, a few hundred at a time."""
        for at in range(0, len(self["row"]), _ROWS):
            if not isinstance(self._held, Path):
                yield {k: v[at : at + _ROWS] for k, v in self._held.items()}
            else:  # opened anew each time, so that what was read of the file does not stay in memory
                with _opened(self._held) as file:
                    yield {k: file.get_slice(k)[at : at + _ROWS] for k in NAMES}

    def write(self, path: Path) -> None:
        """As a safetensors file; what is on the disk there already stays."""
        if self._held != path:
            write_pieces(path, self.pieces, dict(self))


def write_pieces(path: Path, pieces: Callable[[], Iterable[Piece]], like: Piece) -> None:
    """A safetensors file of pieces, which are gone through once for each tensor; the bytes that safetensors writes.

    `like` says the shape and the type of each tensor, where there is no piece.
    """
    sizes = dict.fromkeys(NAMES, 0)
    shapes = {k: list(like[k].shape[1:]) for k in NAMES}
    for piece in pieces():
        for k in NAMES:
            sizes[k] += len(piece[k])
            shapes[k] = list(piece[k].shape[1:])
    header, at = {}, 0
    for k in NAMES:
        end = at + sizes[k] * torch.Size(shapes[k]).numel() * like[k].dtype.itemsize
        header[k] = {"dtype": _KINDS[like[k].dtype], "shape": [sizes[k], *shapes[k]], "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with whole(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for k in NAMES:
            for piece in pieces():
                file.write(piece[k].contiguous().flatten().view(torch.uint8).numpy().data)


def _opened(path: Path) -> safetensors.safe_open:
    try:
        return safetensors.safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} cannot be read ({error}): run the audit again.") from error
