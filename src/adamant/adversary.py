"""What an attack is, what it leaves behind, and whether one can begin: records and protocols, and nothing that runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn

from adamant._types import Inputs, Mask
from adamant.access import Access, Look, Sight, plain, sight
from adamant.batch import Rows
from adamant.desk import Problem
from adamant.errors import AccessError, InputError, ModelError
from adamant.losses import Loss
from adamant.threats import Linf, Parametric, Projectable


class Status(IntEnum):
    """How a row ended."""

    WRONG_ALREADY = 0
    ROBUST = 1
    BROKEN = 2
    OUT_OF_BUDGET = 3
    INVALID = 4  # a defect of the attack: it never looked at a member of the threat model


@runtime_checkable
class Attack(Protocol):
    """Where to look first, and where next, given what was seen; a record of settings and nothing else."""

    needs: ClassVar[Sight]

    @property
    def steps(self) -> int:
        """How many steps; each follows a look, and one look more judges the last."""
        ...

    @property
    def loss(self) -> Loss:
        """What the looks show; of several scores each has its gradient, and the first goes in the books."""
        ...

    def init(self, p: Problem) -> Any:
        """The first state: a `Rows` record with `z`, the first place to look."""
        ...

    def step(self, p: Problem, s: Any, seen: Look, t: int) -> Any:
        """The next state, given what was seen at `s.z`."""
        ...


@runtime_checkable
class Minimal(Protocol):
    """An attack that finds by itself how small a change will do; the only kind that a threat without a budget asks."""

    minimal: ClassVar[bool]


@runtime_checkable
class Roams(Protocol):
    """An attack that also looks outside of the threat model, on its way; only points inside count."""

    roams: ClassVar[bool]


@runtime_checkable
class Picky(Protocol):
    """An attack for some threat models only."""

    threats: ClassVar[tuple[type, ...]]


@runtime_checkable
class Ends(Protocol):
    """A state that knows which rows have no more to ask; they are not looked at again."""

    @property
    def done(self) -> Mask: ...


@runtime_checkable
class Composite(Protocol):
    """An attack made of attacks, run one after another on the rows that still stand."""

    @property
    def needs(self) -> Sight: ...

    @property
    def parts(self) -> tuple[Attack | Composite, ...]:
        """The attacks that it is made of."""
        ...

    def unfold(self, p: Problem) -> Iterator[tuple[Attack | Composite, Problem]]:
        """The parts, each with the problem it is to solve, for all rows of p."""
        ...


@final
@dataclass(frozen=True)
class Outcome(Rows):
    """What became of each row; broken rows were judged once more, alone, in float32."""

    x_adv: Tensor  # the adversarial input where broken (without a budget, the smallest), else the best try
    status: Tensor  # `Status`, int64
    size: Tensor  # float64, in the threat model's unit; of parameters, the largest as a share of what is allowed
    loss: Tensor  # the attack's own loss at x_adv; NaN where nothing was tried
    forwards: Tensor  # passes of the search, int64
    backwards: Tensor
    checks: Tensor  # forwards that only judged: the clean look and the verification
    first_success: Tensor  # the look (counted from 1) that first broke the row, 0 where none did
    part: Tensor  # of a composite: which of its parts, in turn, broke the row; of an attack 0; -1 where none did
    parts: Tensor  # (n, parts, 3), int64: forwards, backwards and checks of each part that any row came to

    @property
    def broken(self) -> Mask:
        """Rows that the attack broke."""
        return self.status == Status.BROKEN

    @property
    def success_rate(self) -> float:
        """Broken rows among those that the model had right."""
        right = int((self.status != Status.WRONG_ALREADY).sum())
        return int(self.broken.sum()) / right if right else 0.0

    @property
    def robust_accuracy(self) -> float:
        """Rows that still stand, among all."""
        standing = (
            (self.status == Status.ROBUST) | (self.status == Status.OUT_OF_BUDGET) | (self.status == Status.INVALID)
        )
        return float(standing.double().mean())

    def accuracy_at(self, eps: float) -> float:
        """Rows that were right and that no change found here of size eps or less breaks, among all.

        After a minimum-norm attack without a budget: robust accuracy at any budget, from one run.
        """
        fell = self.broken & (self.size <= eps)
        return float(((self.status != Status.WRONG_ALREADY) & ~fell).double().mean())


_SHOWN = {Sight.LABELS: "predicted label", Sight.SCORES: "scores", Sight.GRADIENT: "gradient"}
# By name, as the catalogue is above; a test holds the two together.
FITTING = {
    Sight.SCORES: ("Square", "SparseRS", "SimBA", "Bandits", "ZOO", "RandomSearch", "OnePixel"),
    Sight.LABELS: ("HopSkipJump", "SignOPT", "GeoDA", "RayS", "SurFree", "BoundaryAttack", "AdvGAN", "NAG", "Draws"),
}


def check(attack: Attack | Composite, model: Any, x: Any, threat: Projectable | Parametric, access: Access) -> None:
    """Raise ModelError, InputError or AccessError where the attack cannot begin."""
    check_rows(model, x)
    check_access(attack, model, access)
    threat.check(x)
    ball = Linf(1.0) if isinstance(threat, Parametric) else threat
    check_threat(attack, ball, x, type(threat).__name__)


def check_rows(model: Any, x: Any) -> None:
    """Raise ModelError for what is no torch module, InputError for what is no batch of rows."""
    if not isinstance(model, nn.Module):
        raise ModelError(f"The model is a {type(model).__name__}, not a torch module: wrap it with adamant.load_model.")
    if not isinstance(x, Tensor) or x.ndim < 2 or not len(x):
        what = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"Inputs must be a non-empty batch (rows, ...), got {what}.")
    if torch.is_inference(x):
        raise InputError(
            "The inputs were made in torch.inference_mode(), where nothing has a gradient: use torch.no_grad()."
        )


def check_sight(model: nn.Module, access: Access) -> None:
    """Raise AccessError where the model shows less than the access takes."""
    shown = sight(model)
    if access.takes > shown:
        raise AccessError(
            f"{type(access).__name__} takes the {_SHOWN[access.takes]} and this model shows the {_SHOWN[shown]} only: "
            f"leave the access out, or give {plain(model)!r}{_estimated(shown)}. {_fitting(shown)}"
        )


def check_access(attack: Attack | Composite, model: nn.Module, access: Access) -> None:
    """Raise AccessError where the model shows less than the access takes, or the access gives less than is needed."""
    check_sight(model, access)
    shown = sight(model)
    if attack.needs > access.gives:
        who = f"{type(access).__name__} gives the {_SHOWN[access.gives]}"
        if shown < Sight.GRADIENT:
            who = f"this model shows the {_SHOWN[shown]} only"
        greedy = next((leaf for leaf in leaves(attack) if leaf.needs == attack.needs), attack)
        estimated = _estimated(shown) if attack.needs == Sight.GRADIENT else ""
        raise AccessError(
            f"{type(greedy).__name__} needs the {_SHOWN[attack.needs]} and {who}: take another attack{estimated}. "
            f"{_fitting(access.gives)}"
        )


def _estimated(shown: Sight) -> str:
    """How a gradient attack runs all the same."""
    if shown < Sight.SCORES:
        return ""
    return ", or use access=NES(...) or SPSA(...), which estimate gradients from scores and make every attack usable"


def _fitting(shown: Sight) -> str:
    names = [name for needs, held in FITTING.items() if needs <= shown for name in held]
    word = shown.name.lower()
    return f"With {word} alone work {', '.join(names)} (adamant attacks --fits {word} says what each is for)."


def check_threat(attack: Attack | Composite, threat: Projectable, x: Inputs, name: str) -> None:
    """Raise InputError where the attack is not for this threat, which is called `name`, or asks for a budget."""
    endless = threat.budget(x).isinf()
    if bool(endless.any()) and not bool(endless.all()):
        raise InputError("Some rows have a budget and some have none (inf): attack them one after the other.")
    for leaf in leaves(attack):
        if isinstance(leaf, Picky) and not isinstance(threat, leaf.threats):
            fits = ", ".join(t.__name__ for t in leaf.threats)
            raise InputError(f"{type(leaf).__name__} works within {fits}, not within {name}.")
        if bool(endless.any()) and not isinstance(leaf, Minimal):
            raise InputError(
                f"{type(leaf).__name__} works within a budget and {name} has none: give one, such as {name}(0.1), "
                "or take a minimum-norm attack (adamant attacks lists them)."
            )


def leaves(attack: Attack | Composite) -> Iterator[Attack]:
    """The attacks that a composite is made of in the end, or the attack itself."""
    if isinstance(attack, Composite):
        for part in attack.parts:
            yield from leaves(part)
    else:
        yield attack
