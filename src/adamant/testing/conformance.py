"""The conformance suite: the promises to every attack, for anybody to run; long, as each promise is one function.

from adamant.testing import Member, cases, check
for case in cases(Member(MyAttack(), threats=(Linf(0.1),))):
    check(case)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import adamant
from adamant.access import Access, Sight, WhiteBox
from adamant.adversary import Attack, Composite, Minimal, Outcome, Status, leaves
from adamant.attacks import FGSM, starts
from adamant.batch import PerRow, take
from adamant.calling import Settings
from adamant.engine import run
from adamant.goals import Goal, Targeted, Untargeted
from adamant.random import Rng
from adamant.testing.oracles import Affine, Bent, best_margin
from adamant.threats import L0, Projectable
from adamant.values import read
from adamant.variety import Varied

Model = Callable[[tuple[int, ...], int], nn.Module]
ROWS = 10


@final
@dataclass(frozen=True, kw_only=True)
class Member:
    """An attack, what it declares to work with, and how close to the optimum it comes on an affine network."""

    attack: Attack | Composite
    threats: tuple[Projectable, ...]
    access: Access = WhiteBox()
    targeted: bool = True
    # Breaks every row that a budget smaller by this factor can break; if it seeks the smallest change, it comes as near
    # (two classes, affine). None: promises nothing.
    reach: float | None = 1.1
    random: bool = True  # whether the seed changes anything

    @property
    def name(self) -> str:
        """For the names of tests."""
        return type(self.attack).__name__


@final
@dataclass(frozen=True, kw_only=True)
class Case:
    """A member in one situation."""

    member: Member
    threat: Projectable
    targeted: bool
    dtype: torch.dtype
    shape: tuple[int, ...]
    classes: int

    @property
    def name(self) -> str:
        """For the names of tests."""
        kind = "targeted" if self.targeted else "untargeted"
        bits, form = (
            ("float64" if self.dtype == torch.float64 else "float32"),
            ("image" if len(self.shape) > 1 else "flat"),
        )
        return f"{self.member.name}-{type(self.threat).__name__}-{kind}-{bits}-{form}-{self.classes}"

    def inputs(self, rows: int = ROWS) -> Tensor:
        """Inputs in the box; a third of the entries exactly at its edges, as in real pictures."""
        u = Rng.of(7, rows).fold("inputs").uniform(*self.shape, dtype=self.dtype)
        low, high = self.threat.box if hasattr(self.threat, "box") else (0.0, 1.0)  # type: ignore[attr-defined]
        return low + (high - low) * (u * 1.5 - 0.25).clamp(0, 1)

    def goal(self, model: nn.Module, x: Tensor) -> Goal:
        """The model's own predictions are the labels, so that every row starts out right."""
        with torch.no_grad():
            label = model(x).argmax(1)
        return Targeted(label, (label + 1) % self.classes) if self.targeted else Untargeted(label)

    def affine(self) -> Affine:
        """A network whose optimum is known."""
        return Affine(self.shape, self.classes, seed=3, dtype=self.dtype)

    def bent(self) -> Bent:
        """A network with modes, buffers and a kink."""
        return Bent(self.shape, self.classes, seed=5, dtype=self.dtype).eval()

    def run(self, model: nn.Module, x: Tensor, goal: Goal, **changes: Any) -> Outcome:
        """The attack on these rows; `changes` go to the settings, but for `seed`, `rows` and `threat`."""
        rows = changes.pop("rows", torch.arange(len(x)))
        rng, threat = Rng.of(changes.pop("seed", 0), rows), changes.pop("threat", self.threat)
        attack, access = self.member.attack, self.member.access
        return run(attack, model, x, goal, threat, access=access, rng=rng, settings=Settings(**changes))


def cases(member: Member) -> Iterator[Case]:
    """Every threat model x targeted or not x precision x layout x two or ten classes that the member declares."""
    for threat in member.threats:
        for targeted in (False, True)[: 1 + member.targeted]:
            for dtype in (torch.float32, torch.float64):
                for shape in ((12,), (3, 4, 4)):
                    for classes in (2, 10):
                        yield Case(
                            member=member, threat=threat, targeted=targeted, dtype=dtype, shape=shape, classes=classes
                        )


def _require(holds: bool | Tensor, sentence: str) -> None:
    if not bool(holds):
        raise AssertionError(sentence)


def _same(a: Outcome, b: Outcome, sentence: str) -> None:
    most = max(a.parts.shape[1], b.parts.shape[1])  # parts of a composite that no row came to have no books
    a, b = (replace(o, parts=F.pad(o.parts, (0, 0, 0, most - o.parts.shape[1]))) for o in (a, b))
    for name, value in vars(a).items():
        other = getattr(b, name)
        equal = torch.equal(value, other) or bool(((value == other) | ((value != value) & (other != other))).all())
        _require(equal, f"{sentence}: {name} differs")


# --- promises that every case must keep ---------------------------------------------------------------------------


def successes_are_inside_and_real(case: Case) -> None:
    """Every success is a member of the threat model and fools the model alone; nothing else is handed out either."""
    model = case.bent()
    x = case.inputs()
    before, goal = x.clone(), case.goal(model, x)
    out = case.run(model, x, goal)
    _require(torch.equal(x, before), "the inputs were written into")
    _require(out.x_adv.shape == x.shape and out.x_adv.dtype == x.dtype, "shape or precision changed")
    _require(not (out.status == Status.INVALID).any(), "a row was marked invalid: the attack left the threat model")
    _require(case.threat.contains(out.x_adv, x).all(), "a row that was handed out is outside the threat model")
    for i in out.broken.nonzero().squeeze(1):
        logits = model(out.x_adv[i : i + 1]).detach()
        _require(take(goal, i[None]).reached(logits).all(), "a success does not fool the model when it is asked alone")
    _require(torch.equal(out.size, case.threat.size(out.x_adv, x)), "the size is not the size of what was handed out")


def finds_what_is_there_and_nothing_else(case: Case) -> None:
    """On an affine network: breaks what a somewhat smaller budget can break, and nothing that cannot be broken."""
    model, x = case.affine(), case.inputs(16)
    goal = case.goal(model, x)
    # A budget per row, around the one at which it falls.
    critical = _critical(case.threat, case.targeted, case.dtype, case.shape, case.classes)
    for factor, must in ((case.member.reach, True), (0.98, False)):
        if factor is None or (must and case.classes > 2):  # there the optimum need not be within reach
            continue
        eps = (critical * factor).clamp_min(1e-6)
        keep = critical.isfinite()
        if isinstance(case.threat, L0):
            eps = (critical * factor).floor() if must else critical - 1
            keep &= eps >= 1
        if not keep.any():
            continue
        rows = keep.nonzero().squeeze(1)
        threat = case.threat.at(PerRow(eps[rows]))  # type: ignore[arg-type]
        out = case.run(model, x[rows], take(goal, rows), threat=threat, rows=rows)
        if must:
            share = float(out.broken.double().mean())
            _require(share == 1, f"broke {share:.0%} of the rows that a budget {factor:g} times smaller can break")
        if not must:
            _require(not out.broken.any(), "claims to have broken a row that cannot be broken")


def finds_a_small_change(case: Case) -> None:
    """Without a budget, on an affine network: nothing below the optimum, and all within reach of it (minimum norm)."""
    if not all(isinstance(leaf, Minimal) for leaf in leaves(case.member.attack)):
        return
    model, x = case.affine(), case.inputs(16)
    critical = _critical(case.threat, case.targeted, case.dtype, case.shape, case.classes)
    keep = critical.isfinite()
    out = take(case.run(model, x, case.goal(model, x), threat=case.threat.at(torch.inf)), keep)
    ratio = out.size[out.broken] / critical[keep][out.broken]
    _require((ratio > 1 - 1e-5).all(), "claims a change smaller than the smallest that there is")
    if case.member.reach is None or (case.targeted and case.classes > 2):  # there the optimum is known from below only
        return
    share = float(out.broken.double().mean())
    _require(share == 1, f"broke {share:.0%} of the rows that can be broken when there is no budget")
    worst = float(ratio.max() if case.classes == 2 else ratio.median())
    _require(worst <= case.member.reach, f"the change is {worst:.3f} times the smallest that there is")


@cache  # small, and asked for by every member in turn
def _critical(threat: Projectable, targeted: bool, dtype: torch.dtype, shape: tuple[int, ...], classes: int) -> Tensor:
    """The budget at which each row of an affine network falls, by bisection; infinite where the box protects it."""
    nobody = Member(attack=FGSM(), threats=())
    case = Case(member=nobody, threat=threat, targeted=targeted, dtype=dtype, shape=shape, classes=classes)
    model, x = case.affine(), case.inputs(16)
    goal = case.goal(model, x)
    target = goal.target if isinstance(goal, Targeted) else None

    def falls(eps: Tensor | float) -> Tensor:
        budget = PerRow(eps.clamp_min(1e-12)) if isinstance(eps, Tensor) else eps
        return best_margin(model, x, goal.anchor, threat.at(budget), target=target) > 0  # type: ignore[arg-type]

    if isinstance(threat, L0):
        counts = torch.arange(1, x[0].numel() + 1)
        fell = torch.stack([falls(float(k)) for k in counts], 1)
        return torch.where(fell.any(1), counts[fell.double().argmax(1)].double(), torch.inf)
    low, high = torch.zeros(len(x), dtype=torch.float64), torch.full((len(x),), 64.0, dtype=torch.float64)
    never = ~falls(64.0)
    for _ in range(44):
        middle = (low + high) / 2
        fell = falls(middle)
        low, high = torch.where(fell, low, middle), torch.where(fell, middle, high)
    return torch.where(never, torch.inf, high)


def nan_is_never_success(case: Case) -> None:
    """A network that answers NaN away from the clean inputs is not fooled, and stops no row from being tried."""

    class Brittle(nn.Module):
        def __init__(self, net: nn.Module, clean: Tensor) -> None:
            super().__init__()
            self.net, self.clean = net, clean

        def forward(self, z: Tensor) -> Tensor:
            known = torch.stack([(z == c).flatten(1).all(1) for c in self.clean]).any(0)
            return torch.where(known[:, None], self.net(z), torch.nan)

    model, x = case.affine(), case.inputs()
    out = case.run(Brittle(model, x), x, case.goal(model, x))
    _require(not out.broken.any(), "a NaN counted as success")
    _require(out.x_adv.isfinite().all(), "a NaN was handed out")


# --- promises that are kept once per threat model -----------------------------------------------------------------


def rows_do_not_depend_on_their_batch(case: Case) -> None:
    """Any batch size and any order give the same bits."""
    model, x = case.bent(), case.inputs(18)
    goal = case.goal(model, x)
    whole = case.run(model, x, goal)
    for size, rows in ((7, torch.arange(len(x))), (1, torch.arange(0, len(x), 3))):
        some = case.run(model, x[rows], take(goal, rows), rows=rows, batch_size=size)
        _same(take(whole, rows), some, f"batch size {size} changed the outcome")
    order = Rng.of(1, len(x)).key.argsort()
    turned = case.run(model, x[order], take(goal, order), rows=order)
    _same(take(whole, order), turned, "the order of the rows changed the outcome")


def a_seed_fixes_the_result(case: Case) -> None:
    """The same seed gives the same bits, another seed another search where the member is random."""
    model, x = case.bent(), case.inputs()
    goal = case.goal(model, x)
    first = case.run(model, x, goal, seed=1)
    _same(first, case.run(model, x, goal, seed=1), "the same seed gave another outcome")
    if case.member.random:
        other = case.run(model, x, goal, seed=2)
        _require(not torch.equal(first.x_adv, other.x_adv), "another seed changed nothing")


def the_model_is_as_it_was(case: Case) -> None:
    """Modes part by part, requires_grad, .grad, buffers, global random state; and no weight gradient on the way."""
    model, x = case.bent(), case.inputs()
    goal = case.goal(model, x)
    model.drop.train()
    model.norm.eval()
    model.two.weight.requires_grad_(False)
    model.one.weight.grad = torch.ones_like(model.one.weight)
    seen: list[bool] = []

    def watch(module: nn.Module, _args: tuple[Tensor, ...], _out: Tensor) -> None:
        seen.append(any(m.training for m in module.modules()) or any(p.requires_grad for p in module.parameters()))

    handle = model.register_forward_hook(watch)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    random = torch.get_rng_state()
    case.run(model, x, goal)
    handle.remove()
    _require(torch.equal(random, torch.get_rng_state()), "the global random state moved")
    _require(not any(seen), "the model was asked in training mode, or with weights that want gradients")
    _require(model.drop.training and not model.norm.training, "the mode of a submodule was not put back")
    _require(not model.two.weight.requires_grad and model.one.weight.requires_grad, "requires_grad was not put back")
    kept, none = model.one.weight.grad, model.two.weight.grad
    _require(
        torch.equal(torch.as_tensor(kept), torch.ones_like(model.one.weight)) and none is None, "a .grad was touched"
    )
    _require(all(torch.equal(v, state[k]) for k, v in model.state_dict().items()), "a weight or buffer changed")


def the_books_are_right(case: Case) -> None:
    """Forwards and backwards per row are those that a hook on the model counts; a budget of looks is never exceeded."""
    model, x = case.bent(), case.inputs()
    goal = case.goal(model, x)
    counts = {"forward": 0, "backward": 0}

    def count_back(grad: Tensor) -> None:
        counts["backward"] += len(grad)

    def count(_module: nn.Module, _args: tuple[Tensor, ...], out: Tensor) -> None:
        counts["forward"] += len(out)
        if out.requires_grad:
            out.register_hook(count_back)

    handle = model.register_forward_hook(count)
    out = case.run(model, x, goal, lanes=1)
    made = int((out.forwards + out.checks).sum())
    _require(counts["forward"] == made, f"{counts['forward']} forwards were made and {made} are in the books")
    _require(counts["backward"] == int(out.backwards.sum()), "the books of backwards are wrong")
    if case.member.attack.needs < Sight.GRADIENT or not case.member.access.cost(grad=True).backwards:
        _require(not out.backwards.any(), "an attack without gradients made a backward")
    first = out.first_success
    _require(bool(((first > 0) == out.broken).all()) and bool((first <= out.forwards).all()), "first_success is wrong")
    most = max(1, int(out.forwards.max()) // 2)
    counts["forward"] = 0
    short = case.run(model, x, goal, lanes=1, max_looks=most)
    handle.remove()
    _require(bool((short.forwards <= most).all()), "a row was looked at more often than its budget allows")
    _require(counts["forward"] == int((short.forwards + short.checks).sum()), "looks beyond the budget were made")


def what_is_handed_out_was_seen(case: Case) -> None:
    """The best try of a row that stands has the loss that the outcome gives: nobody wrote into it afterwards."""
    attack = case.member.attack
    if isinstance(attack, Composite) or isinstance(case.member.access, Varied):  # there a look is at something else
        return
    model, x = case.bent(), case.inputs()
    goal = case.goal(model, x)
    out = case.run(model, x, goal)
    with torch.no_grad():
        loss = attack.loss(model(out.x_adv), goal).double()
    loss = loss if loss.ndim == 1 else loss[:, 0]
    known = (out.status == Status.ROBUST) & out.loss.isfinite()
    gap = (loss - out.loss).abs()[known]
    _require((gap <= 1e-4 * (1 + loss.abs()[known])).all(), "the loss is not that of the point that was handed out")


def finished_rows_cost_nothing(case: Case) -> None:
    """A row that is wrong already is not looked at."""
    model, x = case.bent(), case.inputs()
    goal = case.goal(model, x)
    wrong = Untargeted((goal.anchor + 1) % case.classes)
    out = case.run(model, x, wrong) if isinstance(goal, Untargeted) else None
    if out is not None:
        _require(bool((out.status == Status.WRONG_ALREADY).all()), "a wrong row was not recognised")
        _require(not out.forwards.any() and torch.equal(out.x_adv, x), "a wrong row was attacked")


def a_flat_network_ends_quietly(case: Case) -> None:
    """Where the gradient is zero everywhere nothing is broken, nothing is NaN, nothing leaves the set."""

    class Flat(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return torch.arange(case.classes, 0, -1, dtype=z.dtype).expand(len(z), -1) + 0 * z.flatten(1).sum(
                1, keepdim=True
            )

    x = case.inputs()
    label = torch.zeros(len(x), dtype=torch.long)
    out = case.run(Flat(), x, Targeted(label, label + 1) if case.targeted else Untargeted(label))
    _require(bool((out.status == Status.ROBUST).all()), "a network that cannot be fooled was not called robust")
    _require(case.threat.contains(out.x_adv, x).all(), "zero gradients led out of the threat model")


def infinite_logits_do_no_harm(case: Case) -> None:
    """A class that the network has ruled out (a logit of minus infinity) is a class that nobody is fooled into."""

    class Ruled(nn.Module):
        def __init__(self, net: nn.Module, out: Tensor) -> None:
            super().__init__()
            self.net, self.out = net, out

        def forward(self, z: Tensor) -> Tensor:
            return self.net(z).masked_fill(self.out, -torch.inf)

    model, x = case.bent(), case.inputs()
    goal = case.goal(model, x)
    known = goal.anchor.unique() if not isinstance(goal, Targeted) else torch.cat([goal.label, goal.target]).unique()
    free = [k for k in range(case.classes) if k not in known.tolist()][:1]
    if not free:
        return
    ruled = Ruled(model, torch.arange(case.classes) == free[0])
    out = case.run(ruled, x, goal)
    _require(out.x_adv.isfinite().all(), "an infinite logit led to a point that is no number")
    _require(not (out.status == Status.INVALID).any(), "an infinite logit led out of the threat model")
    with torch.no_grad():
        found = ruled(out.x_adv).argmax(1)
    _require((found[out.broken] != free[0]).all(), "a row is said to be fooled into a class that is ruled out")


def memory_layout_does_not_matter(case: Case) -> None:
    """Channels-last, transposed and expanded inputs give what contiguous ones give."""
    model, x = case.bent(), case.inputs()
    goal = case.goal(model, x)
    want = case.run(model, x, goal)
    odd = x.transpose(0, -1).contiguous().transpose(0, -1)
    _same(want, case.run(model, odd, goal), "a non-contiguous batch changed the outcome")
    if x.ndim == 4:
        last = x.contiguous(memory_format=torch.channels_last)
        _same(want, case.run(model, last, goal), "channels-last changed the outcome")


def units_do_not_matter(case: Case) -> None:
    """The same network on [0, 256] with 256 times the budget ends every row alike."""

    class Scaled(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, z: Tensor) -> Tensor:
            return self.net(z / 256)

    if not isinstance(case.member.access, WhiteBox) or getattr(case.threat, "box", None) != (0.0, 1.0):
        return
    model, x = case.bent(), case.inputs()
    goal, wide = case.goal(model, x), replace(case.threat, box=(0.0, 256.0))  # type: ignore[type-var]
    if hasattr(wide, "eps") and not isinstance(wide, L0):
        wide = wide.at(float(case.threat.eps) * 256)  # type: ignore[attr-defined]
    a, b = case.run(model, x, goal), case.run(Scaled(model), x * 256, goal, threat=wide)
    _require(int((a.status != b.status).sum()) <= 1, "other units ended rows differently")


def a_wrapper_is_never_called(case: Case) -> None:
    """A data-parallel wrapper is taken off: attacking through it synchronises, or gives wrong gradients."""

    class Wrapper(nn.DataParallel):  # type: ignore[type-arg]
        def forward(self, *inputs: Any, **kwargs: Any) -> Any:
            raise AssertionError("the wrapper was called")

    model, x = case.bent(), case.inputs()
    case.run(Wrapper(model), x, case.goal(model, x))


def repr_is_the_recipe(case: Case) -> None:
    """What an attack prints can be read back, and gives the same attack."""
    attack = case.member.attack
    words = {**vars(adamant), **{s.__name__: s for s in starts.CATALOGUE}, type(attack).__name__: type(attack)}
    again = read(repr(attack), words, kind="attack")
    _require(again == attack and hash(again) == hash(attack), f"{attack!r} does not read back")


EVERY: tuple[Callable[[Case], None], ...] = (
    successes_are_inside_and_real,
    finds_what_is_there_and_nothing_else,
    finds_a_small_change,
    nan_is_never_success,
)
ONCE: tuple[Callable[[Case], None], ...] = (
    rows_do_not_depend_on_their_batch,
    a_seed_fixes_the_result,
    the_model_is_as_it_was,
    the_books_are_right,
    what_is_handed_out_was_seen,
    finished_rows_cost_nothing,
    a_flat_network_ends_quietly,
    infinite_logits_do_no_harm,
    memory_layout_does_not_matter,
    units_do_not_matter,
    a_wrapper_is_never_called,
    repr_is_the_recipe,
)


def check(case: Case) -> None:
    """All promises for a case; raises AssertionError with the promise that was broken."""
    for promise in (*EVERY, *ONCE):
        promise(case)
