"""Images: decode them to [0, 1], one file or a folder with a folder for each class."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from adamant.data.dataset import DataSet
from adamant.data.source import ALL, COMPARED, Indices, Part, Source
from adamant.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm")
VAL_NAMES = ("val", "valid", "validation")
_GREY = ("1", "L")
Size = tuple[int, int]  # height, width


def decode(content: bytes, where: str, *, size: Size | None, colour: bool | None) -> Tensor:
    """An encoded image as (c h w) in [0, 1], grey or RGB; `size` resizes it (bilinear), `colour` asks for one kind.

    Raises `InputError` naming `where` for what is no 8-bit image, and for a colour image among grey ones.
    """
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{where} is not a readable image ({error}); mend or remove it.") from error
    if image.mode.startswith(("I", "F")):
        raise InputError(f"{where} has more than 8 bits for each pixel (mode {image.mode}); save it as 8-bit PNG.")
    grey = image.mode in _GREY
    if colour is False and not grey:
        raise InputError(f"{where} is a colour image among grey ones (mode {image.mode}); make them all of one kind.")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # a palette may carry transparency
    image = image.convert("L" if grey and not colour else "RGB")
    if size is not None and image.size != size[::-1]:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image))
    return (pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)).float().div_(255)


def stack(read: Callable[[int], tuple[bytes, str]], rows: Indices, size: Size | None) -> Tensor:
    """The images of the given rows (m c h w); row 0 of the source decides whether they are grey.

    Raises `InputError` naming the image whose size differs from the first one's.
    """
    colour = len(decode(*read(0), size=size, colour=None)) == 3
    held: Tensor | None = None
    first = ""
    for i, row in enumerate(rows.tolist()):
        content, where = read(row)
        image = decode(content, where, size=size, colour=colour)
        if held is None:
            held, first = image.new_empty(len(rows), *image.shape), where
        if image.shape != held.shape[1:]:
            raise InputError(
                f"{where} is {image.shape[1]}x{image.shape[2]} and {first} is {held.shape[2]}x{held.shape[3]} "
                "(height x width); give size=(height, width) to resize all to one size."
            )
        held[i] = image
    assert held is not None
    return held


def read_image(path: Path, *, label: int | None, size: Size | None) -> DataSet:
    """One image file as a data set of one row; raises `InputError` without its label."""
    if label is None or label < 0:
        raise InputError(f"{path} is one image; say which class it is with label (--label), a number from 0 on.")
    x = decode(path.read_bytes(), str(path), size=size, colour=None)[None]
    return DataSet(
        x=x,
        y=torch.tensor([label]),
        classes=tuple(map(str, range(max(label + 1, 2)))),
        name=path.stem,
        split=ALL,
        rows=torch.zeros(1, dtype=torch.int64),
    )


def read_folder(path: Path, *, size: Size | None) -> Source:
    """A folder with a folder of images for each class, or with such folders below train, val, test.

    The rows go round the classes (the first image of each, the second of each, ...), so the first rows hold all.
    Raises `InputError` for a folder without images, and for classes that differ between splits.
    """
    folders = {child.name: child for child in sorted(path.iterdir()) if child.is_dir() and child.name[0] != "."}
    written = {"train": ("train",), "val": VAL_NAMES, "test": ("test",)}
    splits = {split: folders[name] for split, names in written.items() for name in names if name in folders}
    if "train" not in splits and "test" not in splits:
        splits = {ALL: path}
    classes: tuple[str, ...] = ()
    parts: dict[str, Part] = {}
    for name, folder in splits.items():
        found, part = _classes(folder, size)
        if classes and found != classes:
            odd = sorted(set(found) ^ set(classes))
            raise InputError(f"{folder} has other classes than {path / next(iter(splits))}: {', '.join(odd[:5])}.")
        classes, parts[name] = found, part
    return Source(name=path.name, where=str(path), parts=parts, classes=classes)


def _classes(folder: Path, size: Size | None) -> tuple[tuple[str, ...], Part]:
    inside = [child for child in sorted(folder.iterdir()) if child.is_dir() and child.name[0] != "."]
    images = [[f for f in sorted(child.iterdir()) if f.suffix.lower() in SUFFIXES] for child in inside]
    empty = [child for child, files in zip(inside, images, strict=True) if not files]
    if not inside or empty:
        what = f"no images in {empty[0]}" if empty else "no folder of images"
        raise InputError(
            f"{folder} holds {what}; give it a folder for each class, with its images ({', '.join(SUFFIXES)})."
        )
    order = [(file, label) for turn in zip_longest(*images) for label, file in enumerate(turn) if file is not None]
    return tuple(child.name for child in inside), _part(
        [file for file, _ in order], [label for _, label in order], size
    )


def _part(files: Sequence[Path], labels: Sequence[int], size: Size | None) -> Part:
    def read(row: int) -> tuple[bytes, str]:
        return files[row].read_bytes(), str(files[row])

    def keys(rows: Indices) -> Iterator[bytes]:
        return (files[row].read_bytes() for row in rows)

    cheap = sum(file.stat().st_size for file in files) <= COMPARED
    return Part(
        labels=np.array(labels, dtype=np.int64), read=lambda rows: stack(read, rows, size), keys=keys if cheap else None
    )
