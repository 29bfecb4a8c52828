"""What every command shares: its switches, its progress bars, and how it prints."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from adamant.access import Access, plain
from adamant.cli import words
from adamant.data import DataSet, Stream, load_data, open_data
from adamant.errors import InputError
from adamant.models import load_model

Tell = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Common:
    """The switches of every command."""

    seed: int = 0
    """Keys all randomness."""
    device: str | None = None
    """cpu, cuda, cuda:1 ...; the model's own by default."""
    json: bool = False
    """Print one JSON document and nothing else."""
    quiet: bool = False
    """No progress bars."""

    @property
    def console(self) -> Console:
        """Standard output, or nothing where only JSON may go; a path like [a]:x: is printed as it is."""
        return Console(quiet=self.json, highlight=False, markup=False, emoji=False)

    def say(self, document: Mapping[str, Any]) -> None:
        """Print the JSON document, where it was asked for."""
        if self.json:
            Console(highlight=False, soft_wrap=True, emoji=False).print_json(json.dumps(document))

    def check_device(self) -> None:
        """Raise InputError for a device that is not there, or that computes nothing."""
        if self.device is None or self.device == "cpu":
            return
        try:
            torch.ones(1, device=self.device).item()
        except (RuntimeError, AssertionError) as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[0].partition(". ")[0]
            raise InputError(
                f"The device {self.device!r} cannot be used ({why.rstrip('.')[:200]}): use --device cpu."
            ) from None

    @contextmanager
    def progress(self, title: str, unit: str) -> Generator[Tell]:
        """A progress bar with an estimate of the time left; lines that end an epoch stay."""
        if self.quiet or self.json:
            yield lambda done, total, words: None
            return
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[words]}"),
        )  # fmt: skip
        with Progress(*columns, console=self.console, refresh_per_second=5) as bars:
            task = bars.add_task(title, total=None, words="")
            last = 0.0

            def tell(done: int, total: int, words: str) -> None:
                nonlocal last
                if (now := time.monotonic()) - last > 0.1 or done == total or words.startswith(("epoch", "back")):
                    last = now
                    bars.update(task, completed=done, total=total, words=words)

            yield tell


@dataclass(frozen=True, kw_only=True)
class Data(Common):
    """Which data."""

    data: str | None = None
    """digits, a .npz, a folder of images, a parquet file, torchvision:NAME, or a name in the data folder."""
    split: str = "test"
    """Which part of the data."""
    limit: int | None = None
    """Only the first so many rows."""
    data_dir: str | None = None
    """Where named data lie; or set ADAMANT_DATA_DIR."""

    def load_data(self, split: str | None = None) -> DataSet:
        """The data that were asked for."""
        return load_data(self._named(), split=split or self.split, limit=self.limit, data_dir=self.data_dir)

    def open_data(self) -> Stream:
        """The same, left on the disk."""
        return open_data(self._named(), split=self.split, limit=self.limit, data_dir=self.data_dir)

    def _named(self) -> str:
        if not self.data:
            raise InputError("Which data? Give --data, for example --data digits.")
        return self.data


@dataclass(frozen=True, kw_only=True)
class Source(Data):
    """Which model and which data."""

    model: Annotated[str | None, tyro.conf.Positional] = None
    """A file (.pt2, .safetensors, .pt state dict, .keras, .h5, .onnx), the folder of a SavedModel, zoo:NAME,
    torchvision:NAME@FILE, timm:NAME@FILE, hf:FOLDER, http://... or package.module:callable."""
    arch: str | None = None
    """For a file of weights alone: zoo:NAME or package.module:callable."""
    mean: tuple[float, ...] | None = None
    """Normalisation that the model expects, one number per channel; it is put inside the model."""
    std: tuple[float, ...] | None = None
    trust: bool = False
    """Let a model's file run code that it carries, such as the lambda layers of Keras."""

    def load(self, split: str | None = None) -> tuple[nn.Module, DataSet]:
        """The model on its device, and the data."""
        self.check_device()
        data = self.load_data(split)
        return self.load_model(data), data

    def load_model(self, data: DataSet | Stream) -> nn.Module:
        """The model that was asked for; one of the zoo is built for the shape and the classes of the data."""
        if not self.model:
            raise InputError("Which model? Name a file, zoo:small-cnn, or package.module:callable.")
        model = load_model(
            self.model,
            arch=self.arch,
            shape=tuple(data.x.shape[1:]),
            classes=len(data.classes),
            mean=self.mean,
            std=self.std,
            trust=self.trust,
        )
        device = self.device or of_this_process()
        return model.to(device) if device else model


def of_this_process() -> str | None:
    """Under torchrun, on a machine with several accelerators, each process has its own."""
    own = os.environ.get("LOCAL_RANK")
    return f"cuda:{own}" if own and own.isdigit() and int(own) < torch.cuda.device_count() else None


def seen(text: str, model: nn.Module) -> Access:
    """The access that was asked for; without one, the strongest that the model allows."""
    return words.sight(text) if text else plain(model)


def at_least_one(**settings: int | None) -> None:
    """Raise InputError for a number of something that is below one."""
    for name, value in settings.items():
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}: give a whole number from 1 on.")


def percent(figure: Mapping[str, Any]) -> str:
    """A share with its 95 % interval."""
    return f"{figure['accuracy']:.1%} [{figure['low']:.1%}, {figure['high']:.1%}]"
