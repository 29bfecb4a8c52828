"""The log as TensorBoard reads it; the only file that knows TensorBoard."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from adamant.errors import MissingExtraError
from adamant.runtime.log import Entry, Reader, curves


def installed() -> bool:
    """Whether there is a TensorBoard to write for."""
    return importlib.util.find_spec("tensorboard") is not None


def reader(folder: Path) -> Reader:
    """Writes the figures of the epochs by step, and events as text, to event files in the folder.

    Raises MissingExtraError where TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtraError(
            "TensorBoard is not installed, and its event files were asked for: pip install 'adamant[log]'."
        ) from None
    made: list[Any] = []

    def tell(entry: Entry) -> None:
        if not made:  # not before there is something to write: a run that is refused leaves no file
            made.append(SummaryWriter(str(folder)))
        writer, step, what = made[0], entry["step"], entry["what"]
        if what == "epoch":
            for name, value in curves(entry).items():
                writer.add_scalar(name, value, step)
        else:
            facts = {k: v for k, v in entry.items() if k not in ("what", "step")}
            writer.add_text(what, ", ".join(f"{k}: {v}" for k, v in facts.items()), step)
        writer.flush()
        if what in ("end", "stopped"):
            writer.close()

    return tell
