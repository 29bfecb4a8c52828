"""The log of a run: one line of JSON for each epoch and event, and those who read along while it trains."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, final

from adamant.errors import RunError
from adamant.files import write_whole

Entry = Mapping[str, Any]
_PLACE = ("step", "seconds", "epoch", "best_epoch")


class Reader(Protocol):
    """Is told each entry as it is written: `what` (start, epoch, back, resumed, stopped, end), `step`, `seconds` ..."""

    def __call__(self, entry: Entry) -> None: ...


def curves(entry: Entry) -> dict[str, float]:
    """The figures of an epoch that make a curve over the steps."""
    return {k: float(v) for k, v in entry.items() if isinstance(v, (int, float)) and k not in _PLACE}


@final
class Log:
    """Appends to log.jsonl, each line whole.

    On resume, lines that are later than the checkpoint or cut in two are dropped: their steps come again.
    """

    def __init__(self, path: Path | None, readers: tuple[Reader, ...] = (), *, until: float | None = None) -> None:
        self._path, self._readers = path, readers
        if path is None:
            return
        kept = _lines(path, until) if until is not None and path.exists() else []
        write_whole(path, "".join(kept))

    def __call__(self, what: str, step: int, seconds: float, facts: Entry | None = None) -> None:
        """Write one entry down, and tell the readers; raises RunError where the disk refuses."""
        entry = {"what": what, "step": step, "seconds": round(seconds, 3), **(facts or {})}
        if self._path is not None:
            _append(self._path, json.dumps(entry) + "\n")
        for reader in self._readers:
            reader(entry)


def _lines(path: Path, until: float) -> list[str]:
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if line.endswith("\n") and entry["seconds"] <= round(until, 3):
            kept.append(line)
    return kept


def _append(path: Path, line: str) -> None:
    data = line.encode()
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            if os.write(file, data) < len(data):
                raise OSError(28, "No space left on device")  # a part of the line went in
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}; choose another place.") from error
