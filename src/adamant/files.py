"""Files that appear whole or not at all, their digests, and folders that say why they cannot be written."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Generator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from adamant.errors import RunError


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file by way of a neighbour that takes its name when it is complete and on the disk."""
    with whole(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def whole(path: Path) -> Generator[BinaryIO]:
    """A file to write into, piece by piece, that appears under its name when all is on the disk."""
    with renamed(path) as unfinished, unfinished.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def renamed(path: Path) -> Generator[Path]:
    """Another name of the same suffix, for others to write to; what they made gets its own name when they are done.

    It may be a folder, which takes the place of an older one that holds nothing but things of the same names.
    Raises RunError where it cannot be written.
    """
    unfinished = path.with_name(f".tmp.{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        if unfinished.is_dir() and path.is_dir():
            _exchange(unfinished, path)
        else:
            unfinished.replace(path)
    except RunError:
        raise
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}; choose another place.") from error
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
        with contextlib.suppress(OSError):
            unfinished.unlink()


def _exchange(new: Path, old: Path) -> None:
    """Put a folder in the place of one that holds the same names and nothing else, which is removed."""
    names = {held.name for held in new.iterdir()}
    if others := sorted(held.name for held in old.iterdir() if held.name not in names):
        raise RunError(f"{old} is a folder that holds something else ({', '.join(others[:3])}): choose another place.")
    aside = new.with_name(f"{new.name}.old")
    old.replace(aside)
    try:
        new.replace(old)
    except OSError:
        aside.replace(old)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def sha256(path: str) -> str:
    """Of the file's bytes, which are read once for each of its states; raises OSError where it cannot be read."""
    about = Path(path).stat()
    return _sha256(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=16)
def _sha256(path: str, _changed: int, _size: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def make_folder(path: Path) -> Path:
    """The folder, made where it is missing; raises RunError where it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RunError(
            f"The folder {path} cannot be written: {error.strerror or error}; choose another with --out."
        ) from error
    return path
