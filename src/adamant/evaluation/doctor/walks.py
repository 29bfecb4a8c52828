"""Short attacks, and what their course tells: D14, D15, D16, D17, D18, D21, D27."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import final

import torch
from torch import Tensor

from adamant._types import Mask
from adamant.batch import PerRow, take
from adamant.evaluation.doctor.finding import Finding, Verdict, graded
from adamant.evaluation.doctor.gradients import begin
from adamant.evaluation.doctor.patient import Patient
from adamant.goals import Untargeted
from adamant.losses import CrossEntropy, Margin
from adamant.threats import L1, L2, Linf, Projectable

STEPS, SHORT = 20, 10
DRAWS = 25  # D14: corners per surviving row
ONE_STEP = 0.002  # D15: as AutoAttack's flag for Square, 0.2 points
MORE_STEPS = 0.1  # D16: what the second half of so short a run may gain; healthy networks gained up to 3.5 points
LARGER = 0.005  # D17: points that a larger budget may lose
STANDING = 0.01  # D18: share of rows that a budget of the whole box may leave standing
COURSE = 0.05  # D21: of the range of the loss, gained in the last steps (Pintor et al., 2022, arXiv:2106.09947)

Slope = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


@final
@dataclass(frozen=True)
class Course:
    """What a walk met: rows that fell (n,), the look at which they first did, and the best margin so far (t, n)."""

    broken: Mask
    first: Tensor
    best: Tensor


def walk(p: Patient, threat: Projectable, z: Tensor, steps: int, slope: Slope | None = None) -> Course:
    """Ascent of the margin with steps that shrink as a cosine does; every point on the way is judged."""
    slope = slope or (lambda z, y: p.slope(z, y, Margin()))
    broken = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    first, top = (
        torch.zeros(len(z), dtype=torch.int64, device=z.device),
        torch.full_like(z.flatten(1)[:, 0], -torch.inf),
    )
    best: list[Tensor] = []
    for t in range(steps + 1):
        if bool(broken.all()):
            break
        last = t == steps
        logits, score, g = (p.ask(z), None, None) if last else slope(z, p.y)
        score = Margin()(logits, Untargeted(p.y)) if score is None else score
        fell = Untargeted(p.y).reached(logits) & threat.contains(z, p.x) & ~broken
        broken, first = broken | fell, torch.where(fell, t + 1, first)
        top = torch.fmax(top, score.to(top))
        best.append(top.clone())
        if g is not None:
            rate = 0.02 + 0.25 * (1 + math.cos(math.pi * t / steps))
            z = threat.project(threat.move(z, g.nan_to_num(0.0, 0.0, 0.0), rate), p.x)
    return Course(broken, first, torch.stack(best))


def standing(p: Patient, rows: Mask) -> Patient:
    """The same model, some of the rows."""
    return replace(p, x=p.x[rows], y=p.y[rows], rng=take(p.rng, rows), threat=take(p.threat, rows), clean=p.clean[rows])


def noise(p: Patient, walked: Course) -> Finding:
    """D14: random corners of the set, on the rows that the gradient left standing."""
    q = standing(p, ~walked.broken)
    if not len(q.x):
        return _none("D14", "noise")
    fell = torch.zeros(len(q.x), dtype=torch.bool, device=q.x.device)
    for i in range(DRAWS):
        signs = q.rng.fold("D14").fold(i).sign(*q.x.shape[1:], dtype=q.x.dtype)
        z = q.threat.project(q.threat.move(q.x, q.threat.free(signs), 1.0), q.x)
        fell |= Untargeted(q.y).reached(q.ask(z)) & q.threat.contains(z, q.x)
    n = int(fell.sum())
    return Finding(
        id="D14", name="noise", number=float(n), verdict=Verdict.FAIL if n else Verdict.PASS,
        measured=f"{DRAWS} random corners of the set break {n} of the {len(q.x)} rows that gradients left standing",
        advice="noise finds what gradients do not: gradients mislead here, search without them" if n else "",
    )  # fmt: skip


def one_step(p: Patient, walked: Course) -> Finding:
    """D15: rows that one step of the whole budget breaks and many small steps do not."""
    if not isinstance(p.threat, (Linf, L2, L1)):
        return _none("D15", "one step", f"there is no one step within {type(p.threat).__name__}")
    g = p.slope(p.x, p.y, CrossEntropy())[2]
    z = p.threat.project(p.threat.move(p.x, g, 1.0), p.x)
    fell = Untargeted(p.y).reached(p.ask(z)) & p.threat.contains(z, p.x)
    only, others = int((fell & ~walked.broken).sum()), int((walked.broken & ~fell).sum())
    # A walk may miss a row that one step hits; it is the step that must not be the better attack of the two.
    verdict = compared(only, len(p.x), ONE_STEP) if only > others else Verdict.PASS
    return Finding(
        id="D15", name="one step", number=only / len(p.x), verdict=verdict,
        measured=f"of {len(p.x)} rows one step alone breaks {only}, and {STEPS} steps alone {others}",
        advice="the loss is bent so that small steps go astray (catastrophic overfitting): add one-step attacks, "
        "restarts and search" if verdict > Verdict.PASS else "",
    )  # fmt: skip


def compared(only: int, rows: int, share: float) -> Verdict:
    """WARN above the share, unless a single row makes it; FAIL where chance alone would hardly show so many."""
    if only <= max(1.0, share * rows):
        return Verdict.PASS
    return Verdict.FAIL if (only - 2 * math.sqrt(only)) > share * rows and only > 5 else Verdict.WARN


def steps(_: Patient, walked: Course) -> Finding:
    """D16: what the second half of the steps still gained."""
    half = float((walked.broken & (walked.first <= STEPS // 2 + 1)).double().mean())
    whole = float(walked.broken.double().mean())
    return Finding(
        id="D16", name="steps", number=whole - half, verdict=graded(whole - half, MORE_STEPS),
        measured=f"{STEPS // 2} steps break {half:.1%} of the rows, {STEPS} steps {whole:.1%}",
        advice="steps still pay: attack with 100 or more" if whole - half > MORE_STEPS else "",
    )  # fmt: skip


def optimised(p: Patient, walked: Course) -> Finding:
    """D21: whether the loss of the rows that stand was still rising when the steps ended."""
    kept = walked.best[:, ~walked.broken].double()
    if not kept.shape[1]:
        return _none("D21", "loss curve")
    gain, whole = kept[-1] - kept[-1 - STEPS // 4], kept[-1] - kept[0]
    still = float((gain / whole.clamp_min(1e-3 * p.unit)).mean())
    return Finding(
        id="D21", name="loss curve", number=still, verdict=graded(still, COURSE),
        measured=f"the last {STEPS // 4} of {STEPS} steps gained {still:.1%} of the rise of the loss",
        advice="the loss is still rising: attack with more steps" if still > COURSE else "",
    )  # fmt: skip


def budgets(p: Patient, walked: Course) -> Finding:
    """D17: whether a larger budget breaks at least as many rows, each budget attacked anew."""
    accuracy: list[float] = []
    for factor in (0.5, 1.0, 2.0, 4.0):
        threat = _times(p.threat, factor)
        q = replace(p, threat=threat)
        fell = walked.broken if factor == 1 else walk(q, threat, begin(q, f"D17 {factor}"), SHORT).broken
        accuracy.append(1 - float(fell.double().mean()))
    rise = max(b - a for a, b in pairwise(accuracy))
    return Finding(
        id="D17", name="budgets", number=max(rise, 0.0), verdict=graded(rise, LARGER),
        measured="of the rows that were right, at 0.5, 1, 2 and 4 times the budget stand "
        + ", ".join(f"{a:.1%}" for a in accuracy),
        advice="a larger budget should only help: the attack loses its way, look for masked gradients"
        if rise > LARGER else "",
    )  # fmt: skip


def _times(threat: Projectable, factor: float) -> Projectable:
    eps = getattr(threat, "eps", None)
    return threat.at(PerRow(eps.values * factor) if isinstance(eps, PerRow) else float(eps or 0) * factor)


def unbounded(p: Patient) -> Finding:
    """D18: whether anything stands when the budget is the whole box."""
    low, high = getattr(p.threat, "box", (0.0, 1.0))
    if not isinstance(p.threat, (Linf, L2, L1)) or not math.isfinite(high - low):
        return _none("D18", "no budget", "the whole box is no budget here")
    size = p.x[0].numel()
    eps = (high - low) * {Linf: 1.0, L2: size**0.5, L1: float(size)}[type(p.threat)]
    threat = p.threat.at(eps)
    q = replace(p, threat=threat)
    fell = walk(q, threat, p.x, STEPS).broken
    for turn in range(2):  # from near x: a random point of the whole box is no picture, and fools any network by itself
        if bool(fell.all()):
            break
        rest = standing(p, ~fell)
        wide = replace(rest, threat=threat)
        fell = fell.masked_scatter(~fell, walk(wide, threat, begin(rest, f"D18 {turn}"), STEPS).broken)
    left = 1 - float(fell.double().mean())
    return Finding(
        id="D18", name="no budget", number=left, verdict=graded(left, STANDING, STANDING),
        measured=f"with the whole box for a budget {left:.1%} of the rows stand",
        advice="nothing can stand there: the attack fails, and the figures below it mean little" if left > STANDING
        else "",
    )  # fmt: skip


def seeds(p: Patient, walked: Course) -> Finding:
    """D27: how far the verdicts of the nearest quarter of the survivors depend on the seed."""
    left = ~walked.broken
    if int(left.sum()) < 4:
        return _none("D27", "seeds")
    score = torch.where(left, walked.best[-1], -torch.inf)
    near = torch.zeros_like(left)
    near[score.topk(max(1, int(left.sum()) // 4)).indices] = True
    q = standing(p, near)
    fell = [int(walk(q, q.threat, begin(q, f"D27 {i}"), SHORT).broken.sum()) for i in range(3)]
    spread = (max(fell) - min(fell)) / len(p.x)
    return Finding(
        id="D27", name="seeds", number=spread, verdict=Verdict.PASS,
        measured=f"three more starts break {', '.join(map(str, fell))} of the nearest {len(q.x)} survivors: accuracy "
        f"is uncertain by {spread:.1%} for the seed alone",
    )  # fmt: skip


def _none(name: str, what: str, why: str = "no row stands that could be asked") -> Finding:
    return Finding(id=name, name=what, verdict=Verdict.SKIPPED, number=None, measured=why)
