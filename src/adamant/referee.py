"""The referee: another library's attack under our threat model, and where its claims are false.

Foolbox, torchattacks, ART and adv_lib are met here, and imported nowhere else; none of them is needed otherwise.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from adamant._types import Inputs, Mask
from adamant.adversary import Outcome, Status
from adamant.batch import PerRow, Rows, per_row, take
from adamant.calling import Caller, Settings, untouched, unwrapped
from adamant.errors import InputError, ModelError
from adamant.goals import Goal, Targeted
from adamant.threats import Normed, Parametric, Projectable


@final
@dataclass(frozen=True)
class Ruling(Rows):
    """What came back, what was said of it, and what is true: one line for each row."""

    x_adv: Tensor  # as it came
    claimed: Tensor
    finite: Tensor
    in_box: Tensor
    in_budget: Tensor  # to within the slack
    excess: Tensor  # how far beyond the exact budget, as a share of it
    outcome: Outcome  # ours: broken means inside and fooled, asked alone

    @property
    def false_claims(self) -> Mask:
        """Rows said to be broken that are not; a row that was wrong already is nobody's success."""
        return self.claimed & ~self.outcome.broken & (self.outcome.status != Status.WRONG_ALREADY)

    @property
    def unclaimed(self) -> Mask:
        """Rows that are broken though nobody said so."""
        return ~self.claimed & self.outcome.broken

    def sentences(self) -> list[str]:
        """What is to be said of it, for a person."""
        false, right = self.false_claims, self.outcome.status != Status.WRONG_ALREADY
        lines = [
            f"{int((self.claimed & right).sum())} successes claimed on {int(right.sum())} rows that were right, "
            f"{int(self.outcome.broken.sum())} true."
        ]
        reasons = (
            ("hold NaN or infinity", ~self.finite),
            ("are outside of the box", self.finite & ~self.in_box),
            ("are outside of the budget", self.finite & self.in_box & ~self.in_budget),
            ("do not fool the model when asked alone", self.finite & self.in_box & self.in_budget),
        )
        lines += [
            f"{int((false & rows).sum())} false claims {words}: rows {_some(false & rows)}."
            for words, rows in reasons
            if bool((false & rows).any())
        ]
        close = self.outcome.broken & (self.excess > 0)
        if bool(close.any()):
            most = float(self.excess[close].max())
            lines.append(
                f"{int(close.sum())} true ones lie beyond the budget by rounding, by {most:.1e} of it at most: they "
                "count here, and would not in an audit."
            )
        if bool(self.unclaimed.any()):
            lines.append(f"{int(self.unclaimed.sum())} successes were not claimed: rows {_some(self.unclaimed)}.")
        return lines


def referee(
    attack: Any, model: nn.Module, x: Inputs, goal: Goal, threat: Projectable | Parametric, *, slack: float = 1e-6
) -> Ruling:
    """Let another library attack every row of x (n, *d), and judge what comes back as our own successes are judged.

    `attack` is an attack object of Foolbox, torchattacks or ART (made for this model, as they ask), a function of
    adv_lib, or `craft(model, x, goal) -> (x_adv, claimed)`. A library that claims nothing is taken to claim all that it
    returns changed. `slack` is the share of the budget that rounding may add, beside some last places of a float32 in
    norms, as most libraries do not mind theirs.
    Raises InputError for what is no attack, or returns anything but examples of the shape of x.
    """
    if isinstance(threat, Parametric):
        raise InputError(
            f"Whether a picture is within {type(threat).__name__} cannot be seen from it: nothing to judge."
        )
    threat.check(x)
    raw = unwrapped(model)
    with untouched(raw):
        caller = Caller(raw, Settings())
        clean = caller.alone(x)
        if bool(clean.isnan().any()):
            raise ModelError("The model returns NaN on a clean input: no attack can be judged.")
        goal.check(clean.shape[1])
        wrong = goal.reached(clean)
        made, claimed = _checked(craft(attack, raw, x.clone(), goal, threat), x)
        finite = made.isfinite().flatten(1).all(1)
        budget = threat.budget(x).double()
        in_box = (threat.clip(made) == made).flatten(1).all(1)
        inside = threat.at(PerRow(budget * (1 + slack) + _rounding(threat, x))).contains(made, x)
        broken = torch.zeros_like(wrong)
        asked = (inside & ~wrong).nonzero().squeeze(1)
        if len(asked):
            broken[asked] = take(goal, asked).reached(caller.alone(made[asked]))
    status = torch.where(wrong, int(Status.WRONG_ALREADY), int(Status.ROBUST))
    status[broken] = int(Status.BROKEN)
    best = torch.where(per_row(broken, x), made, x)
    none, nan = torch.zeros_like(status), torch.full((len(x),), torch.nan, dtype=torch.float64, device=x.device)
    checks = 1 + (inside & ~wrong).long()
    costs = torch.zeros(len(x), 1, 3, dtype=torch.int64, device=x.device)
    outcome = Outcome(best, status, threat.size(best, x), nan, none, none, checks, none, broken.long() - 1, costs)
    excess = (threat.size(made, x) / budget - 1).clamp_min(0).nan_to_num(torch.inf)
    return Ruling(made, claimed, finite, in_box, inside, excess, outcome)


def _checked(answer: Any, x: Inputs) -> tuple[Tensor, Mask]:
    """The examples and the claims, each of the shape that it must have."""
    if not isinstance(answer, tuple) or len(cast(tuple[Any, ...], answer)) != 2:
        raise InputError(
            "A function that the referee judges returns (x_adv, claimed): examples, and a mask of successes."
        )
    made, claimed = cast(tuple[Any, Any], answer)
    if getattr(made, "shape", None) != x.shape:
        what = tuple(getattr(made, "shape", ())) or type(made).__name__
        raise InputError(f"The attack returned {what}; examples have the shape of the inputs, {tuple(x.shape)}.")
    claimed = torch.as_tensor(claimed)
    if claimed.shape != x.shape[:1]:
        raise InputError(
            f"The attack claims {tuple(claimed.shape)} successes for {len(x)} rows: one yes or no for each."
        )
    return made.detach().to(x), claimed.detach().to(x.device).bool()


def _rounding(threat: Projectable, x: Inputs) -> Tensor:
    """What four last places of the largest value in every entry add up to, in the norm of the threat; else nothing."""
    if not isinstance(threat, Normed):
        return torch.zeros(len(x), dtype=torch.float64, device=x.device)
    last = (
        4
        * torch.finfo(x.dtype).eps
        * max(1e-30, *(abs(end) for end in getattr(threat, "box", (1.0,)) if math.isfinite(end)))
    )
    return threat.size(torch.full_like(x, last), torch.zeros_like(x))


def better(a: Outcome, b: Outcome) -> Outcome:
    """Row by row the one that broke it, and of two that did the one of smaller change; passes are added up."""
    takes_b = b.broken & (~a.broken | (b.size < a.size))
    fields = {
        name: torch.where(per_row(takes_b, value), getattr(b, name), value)
        for name, value in vars(a).items()
        if name != "parts"
    }
    fields |= {name: getattr(a, name) + getattr(b, name) for name in ("forwards", "backwards", "checks")}
    fields["part"] = torch.where(takes_b, b.part + a.parts.shape[1], a.part)
    fields["parts"] = torch.cat([a.parts, b.parts], 1)
    return Outcome(**fields)


# ---------------------------------------------------------------------------------------------------------------------
# Libraries


def craft(attack: Any, model: nn.Module, x: Inputs, goal: Goal, threat: Projectable) -> tuple[Tensor, Mask]:
    """The library's examples, and which of them it says succeed."""
    inner: Any = getattr(attack, "func", attack)  # inside a functools.partial
    named = inner if hasattr(inner, "__name__") else type(inner)  # a function, or an object that can be called
    library = str(getattr(named, "__module__", "")).partition(".")[0]
    target = goal.target if isinstance(goal, Targeted) else None
    y = goal.anchor if target is None else target
    match library:
        case "foolbox":
            return _foolbox(attack, model, x, y, threat, targeted=target is not None)
        case "torchattacks":
            if target is not None:
                attack.set_mode_targeted_by_label(quiet=True)
            made = attack(x, y)
            if target is not None:
                attack.set_mode_default()
        case "art":
            made = torch.from_numpy(attack.generate(x=x.cpu().numpy(), y=y.cpu().numpy())).to(x.device)
        case "adv_lib":
            made = attack(model=model, inputs=x, labels=y, targeted=target is not None)
        case _:
            if not callable(attack):
                raise InputError(
                    f"{type(attack).__name__} is no attack that the referee knows: give one of Foolbox, torchattacks, "
                    "ART or adv_lib, or a function of (model, x, goal) that returns (x_adv, claimed)."
                )
            return cast(Any, attack)(model, x, goal)
    return made, _changed(made, x)


def _foolbox(
    attack: Any, model: nn.Module, x: Inputs, y: Tensor, threat: Projectable, *, targeted: bool
) -> tuple[Tensor, Mask]:
    foolbox: Any = importlib.import_module("foolbox")
    seen = foolbox.PyTorchModel(model, bounds=getattr(threat, "box", (0.0, 1.0)), device=x.device)
    criterion = foolbox.criteria.TargetedMisclassification(y) if targeted else foolbox.criteria.Misclassification(y)
    eps = getattr(threat, "eps", None)
    if isinstance(eps, PerRow):
        raise InputError("Foolbox takes one budget for all rows: attack rows of one budget at a time.")
    finite = isinstance(eps, (int, float)) and math.isfinite(eps)
    _, clipped, claims = attack(seen, x, criterion, epsilons=eps if finite else None)
    return clipped, claims


def _changed(made: Any, x: Tensor) -> Mask:
    if not isinstance(made, Tensor) or made.shape != x.shape:
        return torch.zeros(len(x), dtype=torch.bool)
    return (made.detach() != x).flatten(1).any(1)


def _some(rows: Mask) -> str:
    found = rows.nonzero().squeeze(1).tolist()
    return ", ".join(map(str, found[:8])) + (" and more" if len(found) > 8 else "")
