"""The one loop: look, judge, keep the best, drop what is done, step.

No attack contains a success check, an early stop, a batch loop, a device move, a mode switch or a progress bar:
they are all here, at the desk (`desk.py`) or around the model (`calling.py`), so that one mend reaches every attack.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adamant._types import Inputs
from adamant.access import Access, Sight, plain
from adamant.adversary import (
    Attack,
    Composite,
    Ends,
    Minimal,
    Outcome,
    Roams,
    Status,
    check,
    check_access,
    check_threat,
)
from adamant.batch import PerRow, cat, on, take
from adamant.calling import Caller, Settings, device_of, out_of_memory, untouched, unwrapped
from adamant.desk import Blind, Desk, Problem, pictures
from adamant.errors import InputError, ModelError, Spent
from adamant.goals import Goal
from adamant.losses import Margin
from adamant.random import Rng
from adamant.threats import Linf, Parametric, Projectable


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run; `outcome` holds the batches that were finished, the first `len(outcome.status)` rows.

    Where a model had a budget of queries `why` says that it is spent, and the last batch is told as far as it came.
    """

    def __init__(self, outcome: Outcome | None, why: str = "") -> None:
        super().__init__(why or "interrupted")
        self.outcome, self.why = outcome, why


# ---------------------------------------------------------------------------------------------------------------------
# The loop


def _drive(attack: Attack, p: Problem, desk: Desk) -> None:
    """Look, drop what is done, step."""
    desk.wake(p, roams=isinstance(attack, (Minimal, Roams)))
    s, dealt, lanes = attack.init(p), -1, desk.model.settings.lanes
    ends = isinstance(s, Ends)
    for t in range(attack.steps + 1):
        if ends:
            desk.rest(p, s.done)
        if desk.closings != dealt:
            dealt, standing = desk.closings, desk.standing(p)
            left = int(standing.sum())
            if not left:
                return
            if -(-left // lanes) < -(-len(standing) // lanes):  # fewer lanes will do: compact
                p, s = take(p, standing), take(s, standing)
        seen = p.look(s.z, attack.loss, grad=attack.needs == Sight.GRADIENT and t < attack.steps)
        if t < attack.steps:
            s = attack.step(p, s, seen, t)


def _solve(attack: Attack | Composite, p: Problem, desk: Desk) -> None:
    """Run an attack, or the parts of a composite one after another, on the rows that still stand."""
    if not isinstance(attack, Composite):
        _drive(attack, p, desk)
        return
    desk.wake(p)
    for part, problem in attack.unfold(p):
        _turn(part, problem, desk)
        if not bool(desk.standing(p).any()):
            return


def _turn(part: Attack | Composite, p: Problem, desk: Desk) -> None:
    """One part of a composite, on the rows that still stand."""
    desk.wake(p)
    standing = desk.standing(p)
    if bool(standing.any()):
        _solve(part, p if bool(standing.all()) else take(p, standing), desk)
    desk.wake(p)


def _in_turn(attack: Attack | Composite, p: Problem, desk: Desk) -> tuple[Tensor, Tensor]:
    """Run the attack, and note by row which of its parts broke it and what each part cost."""
    before, began = desk.tally(), time.perf_counter()
    broke, costs = torch.full_like(desk.first, -1), list[Tensor]()
    if isinstance(attack, Composite):
        desk.wake(p)
        turns = attack.unfold(p)
    else:
        turns = iter([(attack, p)])
    for i, (part, problem) in enumerate(turns if len(p.index) else ()):
        _turn(part, problem, desk)
        after, now = desk.tally(), time.perf_counter()
        costs.append(after - before)
        if desk.model.settings.clock:
            desk.model.settings.clock(i, now - began)
        before, began = after, now
        broke[(desk.found | desk.size.isfinite()) & (broke < 0)] = i
        if not bool(desk.standing(p).any()):
            break
    return broke, torch.stack(costs, 1) if costs else before[:, None, :][:, :0]


def perturb(
    attack: Attack,
    model: nn.Module,
    x: Inputs,
    goal: Goal,
    threat: Projectable,
    *,
    rng: Rng,
    access: Access | None = None,
    settings: Settings | None = None,
) -> Inputs:
    """The attack's last point for every row, and nothing else: for training, and for examples that are to transfer.

    No verdicts, no early stop and no last look, so PGD(steps=k) costs k forwards and k backwards.
    The caller holds the model `untouched`.
    """
    if isinstance(threat, Parametric):
        raise InputError(
            f"{type(threat).__name__} changes parameters of the picture: it can be attacked and audited, and neither "
            "trained with nor transferred."
        )
    access = access or plain(model)
    check_access(attack, model, access)
    check_threat(attack, threat, x, type(threat).__name__)
    desk = Blind(Caller(unwrapped(model), settings or Settings(lanes=1)))
    p = Problem(x, goal, goal, threat, access, rng, torch.arange(len(x), device=x.device), desk)
    s = attack.init(p)
    for t in range(attack.steps):
        s = attack.step(p, s, p.look(s.z, attack.loss, grad=attack.needs == Sight.GRADIENT), t)
    return s.z.detach()


# ---------------------------------------------------------------------------------------------------------------------
# A run: batches, devices, memory, interruption


def run(
    attack: Attack | Composite,
    model: nn.Module,
    x: Inputs,
    goal: Goal,
    threat: Projectable | Parametric,
    *,
    access: Access | None = None,
    rng: Rng | None = None,
    settings: Settings | None = None,
) -> Outcome:
    """Attack every row of x and say what became of it.

    With a budget a row is done at its first success; without one (`L2()`) minimum-norm attacks find the smallest.
    x is (n, *d) inside the threat model's box; `rng` (default: seed 0, rows 0..n-1) keys all randomness by row.
    Without an access it is the strongest that the model allows: `WhiteBox()`, or less where the model shows less.
    A row's outcome does not depend on its batch. Raises InputError, AccessError or ModelError for what cannot be
    attacked, and Interrupted, with the finished batches, on Ctrl-C.
    """
    access, settings = access or plain(model), settings or Settings()
    rng = rng or Rng.of(0, len(x))
    check(attack, model, x, threat, access)
    if isinstance(most := settings.max_looks, PerRow) and len(most.values) != len(x):
        raise InputError(f"There are {len(most.values)} limits of looks for {len(x)} rows.")
    x = x.detach()  # the books are written in place
    device = torch.device(settings.device) if settings.device else device_of(model, x)
    caller, size = Caller(unwrapped(model), settings), settings.batch_size or _batch_size(x, device)
    done: list[Outcome] = []
    at = 0
    try:
        with untouched(caller.model, seed=int(rng.key[0])):
            while at < len(x):
                rows = torch.arange(at, min(at + size, len(x)))
                part = take((x, goal, rng), rows)
                try:
                    outcome, over = _run_batch(
                        attack, take(caller, rows), *part, take(threat, rows), access, device, size, goal
                    )
                except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
                    if not out_of_memory(error) or size == 1:
                        raise
                    size = max(1, size // 2)
                    continue
                done.append(outcome)
                if over:
                    raise Spent(over)
                at += size
                if settings.watch:
                    settings.watch(min(at, len(x)), len(x))
    except KeyboardInterrupt as stop:
        raise Interrupted(_whole(done) if done else None, str(stop) if isinstance(stop, Spent) else "") from None
    return _whole(done)


def _whole(done: list[Outcome]) -> Outcome:
    """All batches; one whose rows all fell early did not come to the last parts."""
    most = max(o.parts.shape[1] for o in done)
    return cat([replace(o, parts=F.pad(o.parts, (0, 0, 0, most - o.parts.shape[1]))) for o in done])


def _run_batch(
    attack: Attack | Composite,
    model: Caller,
    x: Inputs,
    goal: Goal,
    rng: Rng,
    threat: Projectable | Parametric,
    access: Access,
    device: torch.device,
    at_once: int,
    everybody: Goal,
) -> tuple[Outcome, str]:
    """What became of the rows, and why the model answers no more, where it does not."""
    x, goal, rng = on(x, device), on(goal, device), on(rng, device)
    votes = model.settings.votes
    with torch.no_grad():
        clean = model(x)
        ayes = sum((goal.reached(model(x)).long() for _ in range(votes - 1)), goal.reached(clean).long())
    if clean.isnan().any():
        row = int(clean.isnan().any(1).nonzero()[0])
        raise ModelError(f"The model returns NaN on a clean input (row {row} of its batch): no attack can be judged.")
    everybody.check(clean.shape[1])  # of all rows, so that a bad label is named, by its row, before any work is done
    wrong = 2 * ayes > votes
    picture = change = None
    if isinstance(threat, Parametric):
        change, picture, x, threat = threat, x, x.new_zeros(len(x), *threat.parameters(x)), Linf(1.0, box=(-1.0, 1.0))
    smallest, at_once = bool(threat.budget(x).isinf().all()), max(at_once, model.settings.lanes)
    desk = Desk(model, x, clean.shape[1], wrong, at_once, smallest=smallest, clean=Margin()(clean, goal))
    desk.checks += votes
    p = Problem(x, goal, goal, threat, access, rng, torch.arange(len(x), device=device), desk, picture, change)
    right = (~wrong).nonzero().squeeze(1)
    part, parts = _in_turn(attack, take(p, right), desk)
    desk.settle()
    if smallest:
        desk.confirm(p)
        part = torch.where(desk.found, part, -1)
    status = torch.where(wrong, int(Status.WRONG_ALREADY), int(Status.ROBUST))
    status[desk.spent] = int(Status.OUT_OF_BUDGET)
    status[desk.found] = int(Status.BROKEN)
    inside = threat.contains(desk.best, x)
    status[~inside] = int(Status.INVALID)
    best = torch.where(inside.view(-1, *(1,) * (x.ndim - 1)), desk.best, x)
    loss = torch.where(desk.loss > -torch.inf, desk.loss, torch.nan)
    size = threat.size(best, x)
    if change is not None and picture is not None:
        best = _pictures(change, picture, best)
    outcome = Outcome(best, status, size, loss, desk.forwards, desk.backwards, desk.checks, desk.first, part, parts)
    return on(outcome, torch.device("cpu")), desk.over


def _pictures(change: Parametric, picture: Tensor, theta: Tensor) -> Tensor:
    """What the parameters make of each picture; itself where they are zero."""
    made, moved = picture.clone(), theta.flatten(1).any(1).nonzero().flatten()
    if len(moved):
        made[moved] = pictures(*take((change, picture, theta), moved))
    return made


def _batch_size(x: Tensor, device: torch.device) -> int:
    """Small enough to stay in the processor's caches, large enough to fill its units; memory errors halve it."""
    most = 128 if device.type == "cpu" else 1024
    return max(16, min(most, 2**26 // max(1, x[0].numel())))
