"""The one file that imports torchvision for its data sets; what is read is on the disk already."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL.Image import Image, Resampling
from torch import Tensor

from adamant.data import checks
from adamant.data.images import Size
from adamant.data.source import Part, Source
from adamant.errors import InputError, MissingExtraError


def read_torchvision(name: str, root: Path, *, size: Size | None) -> Source:
    """The train and test splits of a torchvision data set below `root`; nothing is downloaded.

    Raises `MissingExtraError` without torchvision, `InputError` for an unknown data set or one that is not in `root`.
    """
    try:
        datasets = cast(Any, import_module("torchvision.datasets"))
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision built for another torch
        raise MissingExtraError(
            f"torchvision:{name} needs torchvision, which cannot be imported ({error}): "
            "pip install adamant[torchvision]."
        ) from error
    make = getattr(datasets, name, None)
    if make is None or not inspect.isclass(make):
        near = difflib.get_close_matches(name, [n for n in dir(datasets) if n[:1].isupper()], n=3, cutoff=0.4)
        raise InputError(
            f"torchvision has no data set {name!r}" + (f"; did you mean {' or '.join(near)}?" if near else ".")
        )
    held = {split: _open(make, name, root, split) for split in ("train", "test")}
    parts = {split: _part(data, f"torchvision:{name} ({split})", size) for split, data in held.items()}
    classes = tuple(str(c) for c in cast(Sequence[Any], getattr(held["train"], "classes", ())))
    return Source(name=name, where=f"torchvision:{name} in {root}", parts=parts, classes=classes)


def _open(make: Any, name: str, root: Path, split: str) -> Any:
    known = inspect.signature(make).parameters
    try:
        if "train" in known:
            return make(root, train=split == "train")
        if "split" in known:
            return make(root, split=split)
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"torchvision:{name} is not in {root} ({error}); adamant downloads nothing: put it there, or give data_dir."
        ) from error
    raise InputError(f"torchvision:{name} has no train and test splits; save it as an .npz file or a folder of images.")


def _part(data: Any, where: str, size: Size | None) -> Part:
    listed = getattr(data, "targets", None)
    listed = getattr(data, "labels", None) if listed is None else listed
    values = [data[i][1] for i in range(len(data))] if listed is None else listed
    y, _ = checks.labels(np.asarray(values), len(data), f"{where}: labels")
    return Part(labels=y, read=lambda rows: torch.cat([_row(data, row, where, size) for row in rows.tolist()]))


def _row(data: Any, row: int, where: str, size: Size | None) -> Tensor:
    image = data[row][0]
    if not isinstance(image, Image):
        raise InputError(
            f"{where}: row {row} is a {type(image).__name__}, not an image; use the data set without transforms."
        )
    image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    image = image if size is None else image.resize((size[1], size[0]), Resampling.BILINEAR)
    pixels = np.array(image)[None]
    return checks.inputs(pixels, np.zeros(1, dtype=np.int64), f"{where}: row {row}")
