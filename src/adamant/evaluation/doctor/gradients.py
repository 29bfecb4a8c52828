"""Whether the gradient reaches the input, and whether it says what the model does: D4, D5, D6, D7."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adamant.batch import per_row
from adamant.errors import ModelError
from adamant.evaluation.doctor.finding import Finding, Verdict, graded
from adamant.evaluation.doctor.patient import Patient
from adamant.losses import CrossEntropy, Margin
from adamant.random import Rng
from adamant.threats import L1, L2, Linf
from adamant.threats.balls import unit

ZERO = 0.01  # D5: share of rows without a gradient of the margin
# D6: the symmetric error along the gradient, summed over rows. What is continuous loses it as the step shrinks; what
# jumps keeps it. Three MNIST networks, eps .3, .1 and 8/255: up to .049 at eps/64 and .007 at eps/512. Rounding passed
# straight through (8 and 64 levels), k-winners-take-all and MeanSparse-like layers: .104 or more at eps/64.
# The agreement of signs at eps/8 alone is no test: a healthy LeNet5, trained against .3, has 96 %.
LEFT, LEFT_NEARER = 0.08, 0.03
ERROR = 0.2  # at eps/64, and more than kinks explain
AGREE = 0.7  # agreement of the signs in random directions, at eps / 64
NEARER, NEAR, FAR = 512, 64, 8
ROUGH = 0.10  # D7 (Pintor et al., 2022, arXiv:2106.09947): mean relative change of the loss
RADIUS, LOOKS = 4 / 255, 10  # D7: of the uniform draws, in units of the box, as in their code


def graph(p: Patient) -> Finding:
    """D4: a gradient that does not reach the input."""
    x, y, why = p.x[:16], p.y[:16], ""
    try:
        p.slope(x, y, Margin())
    except ModelError:
        raise
    except RuntimeError as error:
        why = str(error).strip().splitlines()[0].rstrip(".")
    return Finding(
        id="D4", name="graph", number=float(bool(why)), verdict=Verdict.FAIL if why else Verdict.PASS,
        measured=f"no gradient reaches the input ({why})" if why else "the gradient reaches the input",
        advice="something detaches it or computes outside torch: BPDA around it, access=NES(...), or search without "
        "gradients" if why else "",
    )  # fmt: skip


def zeros(p: Patient, start: Tensor | None) -> Finding:
    """D5: rows whose gradient is zero, of cross-entropy and of margin, at x and at a random start."""
    y, share = p.y[p.right], dict[str, float]()
    for loss in (CrossEntropy(), Margin()):
        name = type(loss).__name__
        for z in (p.x, start):
            if z is not None:
                g = p.slope(z[p.right], y, loss)[2]
                none = float((g.flatten(1).abs().amax(1) == 0).double().mean())
                share[name] = max(share.get(name, 0.0), none)
    ce, margin = share["CrossEntropy"], share["Margin"]
    verdict, advice = (
        graded(margin, 0.0, ZERO),
        "nothing can be climbed: attack by search, by transfer, or through BPDA",
    )
    if verdict == Verdict.PASS and ce > ZERO:
        verdict, advice = Verdict.WARN, "the cross-entropy is saturated: attack Margin() or DLR()"
    return Finding(
        id="D5", name="zero gradients", number=margin, verdict=verdict,
        measured=f"the gradient is zero on {margin:.1%} of the rows for the margin, on {ce:.1%} for the cross-entropy",
        advice=advice if verdict > Verdict.PASS else "",
    )  # fmt: skip


def differences(p: Patient, start: Tensor) -> Finding:
    """D6: the gradient of the margin against finite differences, from a random start."""
    along, steps = _direction(p, p.slope(start, p.y, Margin())[2]), []
    far_says, far_does = _both(p, start, along, FAR)
    near_says, near_does = _both(p, start, along, NEAR)
    for i in range(3):
        rng = p.rng.fold("D6").fold(i)
        shape = start.shape[1:]
        v = rng.normal(*shape, dtype=start.dtype) if isinstance(p.threat, L2) else rng.sign(*shape, dtype=start.dtype)
        steps.append(_both(p, start, _direction(p, p.threat.free(v)), NEAR))
    error, nearer = _error(near_says, near_does), _error(*_both(p, start, along, NEARER))
    far = _mean((far_says.sign() == far_does.sign()).double()[far_says != 0])
    others = _mean(torch.cat([(a.sign() == b.sign())[a != 0] for a, b in steps]).double())
    if math.isnan(error) or math.isnan(far) or math.isnan(others):
        return Finding(
            id="D6", name="wrong gradients", verdict=Verdict.SKIPPED, number=None,
            measured="the gradient is zero everywhere (D5)",
        )  # fmt: skip
    bad, odd = error > ERROR or others < AGREE, error > LEFT or nearer > LEFT_NEARER
    return Finding(
        id="D6", name="wrong gradients", number=error,
        verdict=Verdict.FAIL if bad else Verdict.WARN if odd else Verdict.PASS,
        measured=f"finite differences along the gradient are off by {error:.3f} at eps/{NEAR} and {nearer:.3f} at "
        f"eps/{NEARER}; signs agree on {far:.1%} at eps/{FAR}, and on {others:.1%} of random directions at eps/{NEAR}",
        advice="the gradient does not say what the model does: look for rounding, top-k, thresholds; attack through "
        "BPDA, by transfer, and by search" if bad or odd else "",
    )  # fmt: skip


def _error(says: Tensor, does: Tensor) -> float:
    """What the gradient leaves unexplained, 0 to 1; NaN where it says nothing at all."""
    if not bool((says != 0).any()):
        return math.nan
    return float((says - does).abs().sum() / (says.abs() + does.abs()).sum())


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if len(values) else math.nan


def _direction(p: Patient, g: Tensor) -> Tensor:
    """A change of one budget along g: signs in Linf and L1, the unit vector in L2."""
    eps = per_row(p.threat.budget(g), g)
    if isinstance(p.threat, L2):
        return unit(g) * eps
    d = g.sign() * eps
    return d / g[0].numel() if isinstance(p.threat, L1) else d


def _both(p: Patient, z: Tensor, d: Tensor, part: int) -> tuple[Tensor, Tensor]:
    """What the gradient says of a small step, and what the step does; entries at the edge of the box stay."""
    d = d / part
    d = d * ((p.threat.clip(z + d) == z + d) & (p.threat.clip(z - d) == z - d))
    g = p.slope(z, p.y, Margin())[2]
    rise = p.margin(z + d, p.y).double() - p.margin(z - d, p.y).double()
    return (g.double() * d.double()).flatten(1).sum(1), rise / 2


def rough(p: Patient) -> Finding:
    """D7: how much the margin changes under small uniform noise, of its size (or of the spread of the logits)."""
    here, total = p.margin(p.x, p.y).double(), torch.zeros(len(p.x), dtype=torch.float64, device=p.x.device)
    for i in range(LOOKS):
        noise = p.threat.free(p.rng.fold("D7").fold(i).uniform(*p.x.shape[1:], dtype=p.x.dtype) * 2 - 1)
        there = p.margin(p.threat.clip(p.x + noise * RADIUS * p.threat.width), p.y).double()
        total += (there - here).abs()
    change = float((total / LOOKS / here.abs().clamp_min(p.unit)).mean())
    return Finding(
        id="D7", name="rough loss", number=change, verdict=graded(change, ROUGH),
        measured=f"noise of {RADIUS * p.threat.width:.3g} moves the margin by {change:.1%} of its size",
        advice="steps follow noise there: average the gradient over noise (EOT, Varied), use larger steps and search"
        if change > ROUGH else "",
    )  # fmt: skip


def fits(p: Patient) -> str:
    """Why finite differences cannot be taken within this threat model, or nothing."""
    if not isinstance(p.threat, (Linf, L2, L1)):
        return f"steps are not measured within {type(p.threat).__name__}"
    return "" if bool(p.threat.budget(p.x).isfinite().all()) else "the threat has no budget"


def begin(p: Patient, name: str) -> Tensor:
    """A random member of the threat model, for every row."""
    return p.threat.sample(p.x, _rng(p, name))


def _rng(p: Patient, name: str) -> Rng:
    return p.rng.fold("start").fold(name)
