"""Rows that a trained game makes, as data: to look at, to write to a file, and to train on."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from adamant.data import DataSet
from adamant.errors import InputError
from adamant.files import write_whole
from adamant.generation.base import Sampler
from adamant.generation.files import Saved
from adamant.generation.judge import Judge
from adamant.generation.monitor import asked_labels, samples


def draw(saved: Saved, n: int, *, seed: int = 0, judge: Judge | None = None) -> DataSet:
    """So many made rows, each of its seed and number alone; every class as often where the game takes labels.

    Else the judge names their labels; without one they have none (-1). Raises InputError for a game that makes nothing
    out of nothing.
    """
    if not isinstance(saved.game, Sampler):
        raise InputError(f"{type(saved.game).__name__} changes inputs, and makes none: attack with it.")
    if n < 1:
        raise InputError(f"{n} samples cannot be drawn: give a whole number from 1 on.")
    y = asked_labels(n, len(saved.classes)) if saved.game.conditional else None
    x = samples(saved.game, saved.networks, n, seed=seed, y=y)
    if y is None:
        y = judge.look(x)[1] if judge is not None else torch.full((n,), -1)
    name = type(saved.game).__name__
    return DataSet(x=x, y=y, classes=saved.classes, name=f"{name} samples", split="train", rows=torch.arange(n))


def write_samples(path: Path, data: DataSet) -> None:
    """An .npz file in the layout that `load_data` reads, with the rows as its training split.

    Pictures are stored in bytes, as their source was; raises InputError where rows have no label.
    """
    if bool((data.y < 0).any()):
        raise InputError(f"{data.name} have no labels, which the file needs: name them with a judge.")
    x = data.x.mul(255).round().byte() if data.x.ndim == 4 else data.x
    file = io.BytesIO()
    np.savez_compressed(file, x_train=x.numpy(), y_train=data.y.numpy(), class_names=np.array(data.classes))
    write_whole(path, file.getvalue())
