"""adamant attacks, threats, recipes, models: what exists, with source and cost."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.console import Console
from rich.table import Table

from adamant import threats
from adamant.access import Sight
from adamant.attacks.catalogue import CATALOGUE
from adamant.errors import InputError
from adamant.models import ZOO
from adamant.training import recipes
from adamant.values import brief

Lines = list[dict[str, str]]


def _attacks() -> Lines:
    return [
        {
            "name": e.name, "needs": e.needs, "within": e.within, "finds": e.finds, "when": e.when, "cost": e.cost,
            "source": e.source,
        }
        for e in CATALOGUE
    ]  # fmt: skip


def _first(member: object) -> str:
    return inspect.getdoc(member).splitlines()[0]  # type: ignore[union-attr]


def _threats() -> Lines:
    return [
        {"name": t.__name__, "set": _first(t), "example": _EXAMPLES.get(t.__name__, f"{t.__name__}()")}
        for t in threats.CATALOGUE
    ]


_EXAMPLES = {
    "Linf": "linf:8/255", "L2": "l2:0.5", "L1": "l1:12", "L0": "l0:10", "Patch": "Patch((5, 5))",
    "Pasted": "Pasted(picture=Shared([[[0.0, 1.0]]]))",
}  # fmt: skip


def _recipes() -> Lines:
    made = [(f, f()) for f in recipes.CATALOGUE]
    return [
        {
            "name": r.name, "formula": r.formula, "views": brief(r.inner), "source": r.source,
            "cost": f"{r.cost} forwards per row and step", "what": _first(f),
        }
        for f, r in made
    ]  # fmt: skip


def _models() -> Lines:
    return [{"name": f"zoo:{e.name}", "source": e.source, "when": e.use} for e in ZOO]


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What exists."""

    json: bool = False
    """For machines."""
    apart: ClassVar[tuple[str, ...]] = ()  # only in the JSON: a terminal is narrow

    def show(self, lines: Lines) -> int:
        """Print the lines as a table or as JSON."""
        if self.json:
            Console(soft_wrap=True).print_json(json.dumps(lines))
            return 0
        table = Table(show_edge=False)
        keys: Sequence[str] = [k for k in lines[0] if k not in self.apart]
        for key in keys:
            table.add_column(key, overflow="fold", no_wrap=max(len(line[key]) for line in lines) < 22)
        for line in lines:
            table.add_row(*(line[k] for k in keys))
        Console(highlight=False).print(table)
        return 0


@dataclass(frozen=True, kw_only=True)
class Attacks(Listing):
    """List the attacks: what each needs, where it works, and when to use it; cost and source with --json."""

    fits: str = ""
    """Only those that work where so much is seen of the model: labels, scores or gradient."""
    apart: ClassVar[tuple[str, ...]] = ("cost", "source")

    def run(self) -> int:
        """Print them."""
        if not self.fits:
            return self.show(_attacks())
        sights = {s.name.lower(): s for s in Sight}
        if self.fits not in sights:
            raise InputError(f"--fits is {self.fits!r}: choose among {', '.join(sights)}.")
        enough = [name for name, held in sights.items() if held <= sights[self.fits]]
        return self.show([line for line in _attacks() if line["needs"] in enough])


@dataclass(frozen=True, kw_only=True)
class Threats(Listing):
    """List the threat models."""

    def run(self) -> int:
        """Print them."""
        return self.show(_threats())


@dataclass(frozen=True, kw_only=True)
class Recipes(Listing):
    """List the training recipes, with formula, source and cost."""

    def run(self) -> int:
        """Print them."""
        return self.show(_recipes())


@dataclass(frozen=True, kw_only=True)
class Models(Listing):
    """List the networks of the zoo."""

    def run(self) -> int:
        """Print them."""
        return self.show(_models())
