"""load_data: from what a person writes (a name, a file, a folder) to a DataSet."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from adamant.data.arrays import read_npz
from adamant.data.dataset import DataSet
from adamant.data.digits import read_digits
from adamant.data.images import SUFFIXES, Size, read_folder, read_image
from adamant.data.parquet import parquet_files, read_parquet
from adamant.data.source import Source, gather, stream
from adamant.data.stream import Stream
from adamant.data.torchvision import read_torchvision
from adamant.errors import InputError

VARIABLE = "ADAMANT_DATA_DIR"


@dataclass(frozen=True, kw_only=True)
class Loadable:
    """One kind of data that `load_data` reads: how it is written, and what it is."""

    spec: str
    what: str


DATA: tuple[Loadable, ...] = (
    Loadable(spec="digits", what="1797 handwritten digits of 8x8 pixels, included: nothing to download"),
    Loadable(
        spec="FILE.npz", what="arrays in the Keras layout: x_train, y_train, x_test, y_test, perhaps x_val, y_val"
    ),
    Loadable(spec="FOLDER", what="images, a folder for each class, perhaps below train, val and test"),
    Loadable(spec="FILE.parquet", what="images in the Hugging Face layout (image, label); also a folder of such files"),
    Loadable(spec="torchvision:NAME", what="a data set of torchvision that is in the data folder already"),
    Loadable(spec="FILE.png", what="one image (also .jpg and others), with its label"),
    Loadable(
        spec="NAME", what=f"NAME.npz, NAME.parquet or the folder NAME in the data folder (data_dir or {VARIABLE})"
    ),
)


def load_data(
    spec: str | os.PathLike[str],
    *,
    split: str = "test",
    limit: int | None = None,
    seed: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
    label: int | None = None,
    size: Size | None = None,
) -> DataSet:
    """Load labelled inputs: images as float32 (n c h w) in [0, 1], vectors (n d) as they are.

    `DATA` lists what `spec` can be. `split` is train, val or test (or all, for a source without splits); `limit` takes
    its first rows; `seed` chooses the tenth of train that is val where a source has train and no val: use one seed for
    both. `label` is for one image, `size` (height, width) resizes images. A bare name is sought in `data_dir`, else in
    the folder that ADAMANT_DATA_DIR names, else here. Raises `InputError` that names the file, the row and the value.
    """
    spec, folder, path = _place(spec, data_dir)
    if _is_image(path):
        return read_image(path, label=label, size=size)
    if label is not None:
        raise InputError(f"label is {label}, and {spec} brings its own labels; label is for one image file.")
    return gather(_read(spec, path, folder, split, size), split=split, limit=limit, seed=seed)


def open_data(
    spec: str | os.PathLike[str],
    *,
    split: str = "test",
    limit: int | None = None,
    seed: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
    size: Size | None = None,
) -> Stream:
    """The rows that `load_data` loads, left on the disk: each is read, and checked, when it is asked for.

    Images are read file by file, parquet by row groups, .npz by rows. A compressed .npz cannot be read in places: its
    array is unpacked at the first use and kept as it is stored (a byte for each pixel, most often). torchvision's data
    sets keep in memory what they keep. Raises `InputError` as `load_data` does.
    """
    spec, folder, path = _place(spec, data_dir)
    if _is_image(path):
        raise InputError(f"{path} is one image; give a data set here, and attack one image with adamant attack.")
    return stream(_read(spec, path, folder, split, size), split=split, limit=limit, seed=seed)


def _place(spec: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None) -> tuple[str, Path, Path | None]:
    """The spec as text, the data folder, and the file or folder that is meant, where it is one."""
    folder = Path(data_dir or os.environ.get(VARIABLE) or ".")
    spec = os.fspath(spec)
    return spec, folder, None if spec == "digits" or spec.startswith("torchvision:") else _find(spec, folder)


def _is_image(path: Path | None) -> TypeGuard[Path]:
    return path is not None and path.is_file() and path.suffix.lower() in SUFFIXES


def _read(spec: str, path: Path | None, folder: Path, split: str, size: Size | None) -> Source:
    if size is not None and (path is None or path.suffix == ".npz") and not spec.startswith("torchvision:"):
        raise InputError(f"size is {size}, and {spec} holds arrays; size is for image files.")
    if spec.startswith("torchvision:"):
        return read_torchvision(spec.removeprefix("torchvision:"), folder, size=size)
    if path is None:
        return read_digits()
    if path.is_dir():
        return read_parquet(path, size=size) if parquet_files(path) else read_folder(path, size=size)
    if path.suffix == ".npz":
        return read_npz(path, split)
    if path.suffix == ".parquet":
        return read_parquet(path, size=size)
    kinds = "; ".join(f"{kind.spec}, {kind.what}" for kind in DATA)
    raise InputError(f"{path} is not a kind of file that adamant reads. It reads: {kinds}.")


def _find(spec: str, folder: Path) -> Path:
    """The file or folder that a spec means: the path itself, or below the data folder; a bare name there first."""
    path = Path(spec)
    bare = path.name == spec and not path.suffix
    below = [folder / f"{spec}.npz", folder / spec, folder / f"{spec}.parquet"] if bare else [path, folder / path]
    for candidate in (*below, path):
        if candidate.exists():
            return candidate
    there = sorted(p.name for p in folder.iterdir() if p.name[0] != ".") if folder.is_dir() else []
    stems = ["digits", *(Path(name).stem for name in there)]
    near = difflib.get_close_matches(spec if bare else path.stem, stems, n=2)
    hint = f" Did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
    held = f"holds {', '.join(there[:20])}" if there else "is empty or missing"
    raise InputError(
        f"There are no data {spec!r}: the data folder {folder} {held}. Give a path, or say where your data are with "
        f"data_dir (--data-dir) or the environment variable {VARIABLE}; digits is always there.{hint}"
    )
