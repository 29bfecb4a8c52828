"""The finished chunks of an audit on the disk, and the tables that they add up to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
from safetensors import SafetensorError

from adamant.adversary import Attack, Composite
from adamant.attacks.catalogue import CATALOGUE
from adamant.attacks.composites import EachTarget
from adamant.errors import RunError
from adamant.evaluation.kept import NAMES, Kept, Piece, write_pieces
from adamant.files import make_folder, write_whole
from adamant.values import brief

SCHEMA = pa.schema(
    [
        ("row", pa.int64()),  # in the original data
        ("label", pa.int64()),
        ("clean_prediction", pa.int64()),
        ("clean_confidence", pa.float64()),
        ("status", pa.string()),
        ("attack", pa.string()),  # that broke the row
        ("adversarial_prediction", pa.int64()),
        ("adversarial_confidence", pa.float64()),
        ("size", pa.float64()),  # of the change, in the threat model's unit
        ("loss", pa.float64()),
        ("forwards", pa.int64()),
        ("backwards", pa.int64()),
        ("first_success", pa.int64()),  # forwards spent when it broke
        ("distance", pa.float64()),  # the size of the smallest change found that fools; null where there is none
    ]
)
EVIDENCE = "adversarial.safetensors"
COLUMNS: tuple[str, ...] = tuple(SCHEMA.names)


@dataclass(frozen=True)
class Stage:
    """What one attack of the suite did."""

    attack: str  # what a table calls it
    recipe: str  # as it is written
    source: str
    needs: int
    entered: int = 0
    broke: int = 0
    forwards: int = 0
    backwards: int = 0
    checks: int = 0
    seconds: float = 0.0
    blind: int = 0  # rows on which the model answered every look with NaN
    rejected: int = 0  # successes that did not hold when they were judged once more
    left_out: bool = False  # not defined for so few classes

    @staticmethod
    def idle(attack: Attack | Composite, name: str, *, left_out: bool = False) -> Stage:
        """Of an attack that has done nothing yet."""
        return Stage(name, brief(attack), source(attack), int(attack.needs), left_out=left_out)

    @staticmethod
    def nothing(like: Stage) -> Stage:
        """The same attack, with nothing done."""
        return Stage(like.attack, like.recipe, like.source, like.needs, left_out=like.left_out)

    def plus(self, other: Stage) -> Stage:
        """The same stage over more rows."""
        sums = ("entered", "broke", "forwards", "backwards", "checks", "seconds", "blind", "rejected")
        return replace(self, **{k: getattr(self, k) + getattr(other, k) for k in sums})

    def summary(self, rows: int) -> dict[str, Any]:
        """For result.json."""
        standing = self.entered - self.broke
        facts = {
            k: v for k, v in asdict(self).items() if k not in ("needs", "seconds", "blind", "rejected", "left_out")
        }
        return {**facts, "standing": standing, "robust_accuracy": standing / rows, "seconds": round(self.seconds, 3)}


def source(attack: Attack | Composite) -> str:
    """Where an attack comes from; of a composite, where its parts do."""
    return "; ".join(dict.fromkeys(_sources(attack)))


def _sources(attack: Attack | Composite) -> Iterator[str]:
    own = next((e.source for e in CATALOGUE if e.member is type(attack)), "")
    if not isinstance(attack, Composite):
        yield own
        return
    if isinstance(attack, EachTarget):
        yield own
    for part in attack.parts:
        yield from _sources(part)


def difference(theirs: str, ours: str) -> str:
    """The first part in which two identities differ."""
    for was, now in zip(theirs.split(" | "), ours.split(" | "), strict=False):
        if was != now:
            return f"It was made with {was}, this is {now}."
    return "It was made by another version of adamant."


@dataclass(frozen=True)
class Part:
    """A finished chunk: its lines, its broken inputs (nothing, where they are on the disk), what each attack did."""

    columns: dict[str, list[Any]]
    broken: Piece
    stages: tuple[Stage, ...]

    def to_bytes(self, identity: str) -> bytes:
        """As one safetensors file."""
        facts = {
            "identity": identity,
            "columns": json.dumps(self.columns),
            "stages": json.dumps([asdict(s) for s in self.stages]),
        }
        return safetensors.torch.save({k: v.contiguous() for k, v in self.broken.items()}, metadata=facts)

    @classmethod
    def read(cls, path: Path, identity: str) -> Self:
        """From such a file, without the inputs; raises RunError where it is damaged or of another audit."""
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                facts = file.metadata() or {}
                for name in NAMES:
                    file.get_slice(name)
            theirs, columns = facts["identity"], json.loads(facts["columns"])
            stages = tuple(Stage(**s) for s in json.loads(facts["stages"]))
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            raise RunError(f"{path} cannot be read ({error}): delete it, and it will be made again.") from error
        if theirs != identity:
            raise RunError(
                f"{path.parent} holds the beginning of another audit. {difference(theirs, identity)} "
                "Give the same model, data and settings, or another --out."
            )
        return cls(columns, {}, stages)


class Parts:
    """The chunks that are finished; where there is a folder, their inputs are on the disk and nowhere else."""

    def __init__(self, folder: Path | None, identity: str, *, resume: bool) -> None:
        self.folder = make_folder(folder / "parts") if folder else None
        self.identity, self.seconds_before = identity, 0.0
        self._parts: dict[int, Part] = {}
        # Of an earlier audit that is not continued; they go when this one has something to put in their place.
        self._stale = [*self.folder.glob("*.safetensors")] if self.folder and not resume else []
        if self.folder and resume:
            for path in sorted(self.folder.glob("[0-9]*.safetensors")):
                self._parts[int(path.stem)] = part = Part.read(path, identity)
                self.seconds_before += sum(s.seconds for s in part.stages)

    @staticmethod
    def forget(folder: Path) -> None:
        """Remove what an earlier audit left in this folder."""
        for path in (folder / "parts").glob("*.safetensors"):
            path.unlink(missing_ok=True)

    def __contains__(self, number: int) -> bool:
        return number in self._parts

    def add(self, number: int, part: Part) -> None:
        """Keep a finished chunk."""
        while self._stale:
            self._stale.pop().unlink(missing_ok=True)
        if self.folder:
            write_whole(self._file(number), part.to_bytes(self.identity))
            part = replace(part, broken={})
        self._parts[number] = part

    def merged(self) -> tuple[dict[str, list[Any]], tuple[Stage, ...]]:
        """All lines, and the stages summed."""
        parts = [self._parts[k] for k in sorted(self._parts)]
        columns = {k: [v for p in parts for v in p.columns[k]] for k in COLUMNS}
        stages = list(parts[0].stages)
        for part in parts[1:]:
            stages = [a.plus(b) for a, b in zip(stages, part.stages, strict=True)]
        return columns, tuple(stages)

    def kept(self) -> Kept:
        """All broken inputs, where there is no folder."""
        parts = [self._parts[k] for k in sorted(self._parts)]
        return Kept({k: torch.cat([p.broken[k] for p in parts]) for k in NAMES})

    def write_kept(self, path: Path) -> None:
        """The broken inputs of all chunks as one file, one chunk after another."""
        files = [self._file(k) for k in sorted(self._parts)]
        like = {k: v[:0].clone() for k, v in Kept(files[0]).items()}
        write_pieces(path, lambda: (dict(Kept(file)) for file in files), like)

    def _file(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{number:06d}.safetensors"


def write_tables(folder: Path, columns: dict[str, list[Any]], broken: Kept) -> None:
    """rows.parquet and adversarial.safetensors, byte for byte the same for the same rows."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=SCHEMA), sink)
    write_whole(folder / "rows.parquet", sink.getvalue().to_pybytes())
    broken.write(folder / EVIDENCE)


def forget_parts(folder: Path) -> None:
    """The chunks go when all that they add up to is written."""
    shutil.rmtree(folder / "parts", ignore_errors=True)
