"""A suite, and its courses: which attacks an audit runs, in which order, within which threat model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from adamant.access import Access, Sight
from adamant.adversary import Attack, Composite, leaves
from adamant.attacks import EachTarget
from adamant.errors import InputError
from adamant.losses import DLR

Part = Attack | Composite


@final
@dataclass(frozen=True)
class Course:
    """The attacks of a suite, in turn, and for which threat models they are; for all where none is named."""

    attacks: tuple[Part, ...]
    names: tuple[str, ...] = ()  # what a table calls them; by default what they are
    threats: tuple[str, ...] = ()

    @property
    def needs(self) -> Sight:
        """How much these attacks must see of the model."""
        return max(a.needs for a in self.attacks)


@final
@dataclass(frozen=True)
class Suite:
    """Attacks from cheap to dear; each runs only on the rows that the ones before it left standing.

    `others` hold plans for some threat models, or for less sight of the model; the first that fits is taken.
    """

    name: str
    attacks: tuple[Part, ...] = ()
    when: str = ""
    others: tuple[Course, ...] = ()

    def course(self, threat: object, access: Access) -> Course:
        """What is run within this threat model; raises InputError where nothing fits."""
        fitting = [p for p in self.others if not p.threats or type(threat).__name__ in p.threats]
        fitting += [Course(self.attacks)] if self.attacks else []
        for plan in fitting:
            if plan.needs <= access.gives:
                return plan
        if self.attacks or fitting:
            return fitting[-1]  # the engine says, in a sentence, what the access lacks
        within = ", ".join(dict.fromkeys(t for p in self.others for t in p.threats))
        raise InputError(
            f"The suite {self.name} has no attack within {type(threat).__name__}: it is for {within}, so take another."
        )

    def parts(self) -> tuple[Part, ...]:
        """Every attack that it may run."""
        return (*self.attacks, *(a for p in self.others for a in p.attacks))


def defined(part: Part, classes: int) -> bool:
    """Whether an attack can run on a model of so many classes: DLR compares three logits, with a target four."""
    least = 4 if isinstance(part, EachTarget) else 3
    return classes >= least or not any(isinstance(leaf.loss, DLR) for leaf in leaves(part))
