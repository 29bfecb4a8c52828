"""What can be said of the data and the labels: D10, D11, D12, D30."""

from __future__ import annotations

import math
from typing import cast

from scipy.stats import binomtest
from torch import Tensor

from adamant.evaluation.doctor.finding import Finding, Verdict
from adamant.threats import Linf

APART = 0.05  # D11: between the accuracy claimed and the one found (RobustBench issues 59, 99, 155)
GREY = 0.5  # D10: a Linf budget of so much of the range turns any picture grey
DARK = 2 / 255  # D10: pictures no brighter than that were divided by 255 twice


def inputs(x: Tensor, threat: object) -> Finding:
    """D10: the range of the inputs, and the budget in it."""
    low, high = cast(tuple[float, float], getattr(threat, "box", (0.0, 1.0)))
    values = x.double()
    least, most, mean, std = (float(v) for v in (values.min(), values.max(), values.mean(), values.std()))
    said = (
        f"inputs lie in [{least:.3g}, {most:.3g}], mean {mean:.2g}, deviation {std:.2g}; the box is [{low:g}, {high:g}]"
    )
    verdict, advice = Verdict.PASS, ""
    eps = getattr(threat, "eps", None)
    if not bool(values.isfinite().all()):
        verdict, advice = Verdict.FAIL, "some inputs are no numbers: mend or drop these rows"
    elif not x.is_floating_point():
        said, verdict = f"inputs are {x.dtype}; {said}", Verdict.FAIL
        advice = "convert them to float32 and divide bytes by 255"
    elif least < low or most > high:
        verdict = Verdict.FAIL
        advice = "give the threat the box of your data"
        if abs(mean) < 0.5 and 0.5 < std < 2 and least < 0:
            advice = "these are normalised: put mean and std into the model, so that eps is in units of the picture"
        elif least >= 0 and most > 2 * high and most <= 255 * high:
            advice = f"divide them by {255 if most > 16 else most:g}"
    elif math.isfinite(high - low) and x.ndim == 4 and most - least <= DARK * (high - low):
        verdict, advice = Verdict.WARN, "there is hardly anything in these pictures: were they divided by 255 twice?"
    elif isinstance(threat, Linf) and isinstance(eps, (int, float)) and GREY * (high - low) <= eps < math.inf:
        said, verdict = f"eps is {eps:g}; {said}", Verdict.WARN
        advice = "such a budget can turn any picture grey, and nothing can withstand it: was eps divided by 255?"
    return Finding(id="D10", name="range", number=most, verdict=verdict, measured=said, advice=advice)


def claim(right: int, rows: int, claimed: float | None) -> Finding:
    """D11: the clean accuracy, beside the one that is claimed for the model."""
    found = right / rows
    if claimed is None:
        return Finding(
            id="D11", name="clean accuracy", number=found, verdict=Verdict.SKIPPED,
            measured=f"{found:.1%} of {rows} rows are right; no claim was given to compare it with",
        )  # fmt: skip
    interval = binomtest(right, rows).proportion_ci(0.95, method="wilson")
    off = abs(found - claimed) > APART and not interval.low <= claimed <= interval.high
    return Finding(
        id="D11", name="clean accuracy", number=found, verdict=Verdict.FAIL if off else Verdict.PASS,
        measured=f"{found:.1%} of {rows} rows are right, and {claimed:.1%} are claimed",
        advice="this is not the model as it was evaluated: look at normalisation, the order of channels, resizing, the "
        "weights" if off else "",
    )  # fmt: skip


def labels(y: Tensor, clean: Tensor) -> Finding:
    """D12: their type, their range, and whether they are those of this model."""
    classes, rows = clean.shape[1], len(clean)
    usable = usable_labels(y, rows, classes)
    if usable is None or y.ndim != 1 or y.is_floating_point():
        low, high = (float(y.min()), float(y.max())) if y.numel() else (math.nan, math.nan)
        return Finding(
            id="D12", name="labels", number=None, verdict=Verdict.FAIL,
            measured=f"labels are {y.dtype} of shape {tuple(y.shape)} in [{low:g}, {high:g}]; the model has {classes} "
            f"classes and there are {rows} rows",
            advice="give one whole number from 0 on for each row"
            + ("; these are one-hot: take argmax(1)" if y.ndim == 2 and usable is not None else ""),
        )  # fmt: skip
    top = clean.argmax(1).cpu()
    accuracy = float((top == usable).double().mean())
    # Twice what guessing gets; with two or three classes that would be more than a fair network gets.
    least = min(2 / classes, 1 / classes + 0.1)
    poor, hint = accuracy < least, "the labels are not those that the model learnt, or the inputs are not"
    best = max(range(classes), key=lambda by: int((top == (usable + by) % classes).sum()))
    shifted = float((top == (usable + best) % classes).double().mean())
    if poor and best and shifted > max(least, 2 * accuracy):
        hint = (
            f"with every label moved by {best if best <= classes // 2 else best - classes:+d} it would be {shifted:.0%}"
        )
    return Finding(
        id="D12", name="labels", number=accuracy, verdict=Verdict.FAIL if poor else Verdict.PASS,
        measured=f"the model has {accuracy:.1%} of {rows} rows right; guessing among {classes} gets {1 / classes:.1%}",
        advice=hint if poor else "",
    )  # fmt: skip


def usable_labels(y: Tensor, rows: int, classes: int) -> Tensor | None:
    """The labels as whole numbers (n,), where they can be read as such."""
    y = y.detach().cpu()
    if y.ndim == 2 and y.shape == (rows, classes) and classes > 1:
        hot = ((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all()
        return y.argmax(1) if bool(hot) else None
    if y.ndim != 1 or len(y) != rows or not bool((y == y.long()).all()):
        return None
    y = y.long()
    return y if bool(((y >= 0) & (y < classes)).all()) else None


def rejection(outputs: int, classes: int | None, y: Tensor) -> Finding:
    """D30: one output more than there are classes, or a label of -1: a model that may refuse to answer."""
    if y.ndim == 1 and bool((y == -1).any()):
        said, verdict = "some labels are -1", Verdict.FAIL
    elif classes is None or classes < 2:
        return Finding(
            id="D30", name="rejection", verdict=Verdict.SKIPPED, number=None, measured="how many classes is not known"
        )
    else:
        said = f"the model has {outputs} outputs for {classes} classes"
        verdict = {classes: Verdict.PASS, classes + 1: Verdict.FAIL}.get(outputs, Verdict.WARN)
    advice = ""
    if verdict == Verdict.FAIL:
        advice = "a model that can refuse needs an attack that also avoids its refusal, and a count of its own"
    elif verdict == Verdict.WARN:
        advice = "are these the data of this model?"
    return Finding(
        id="D30", name="rejection", verdict=verdict, number=float(outputs - (classes or 0)), measured=said,
        advice=advice,
    )  # fmt: skip


def numbers(out: Tensor) -> Finding:
    """D22, of the clean rows: answers that are no numbers."""
    odd = int((~out.isfinite()).flatten(1).any(1).sum())
    first = int((~out.isfinite()).flatten(1).any(1).nonzero()[0]) if odd else -1
    return Finding(
        id="D22", name="numbers", number=float(odd), verdict=Verdict.FAIL if odd else Verdict.PASS,
        measured=f"on {odd} of {len(out)} clean rows the model returns NaN or infinity (row {first} first)" if odd
        else f"the model returns numbers on all {len(out)} rows",
        advice="no verdict can be had there: look for log(0), 0/0 and overflow; these rows are left out below"
        if odd else "",
    )  # fmt: skip
