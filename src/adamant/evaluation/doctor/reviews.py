"""What an audit that is done tells of itself: D13, D15, D20, D22, D25, D26, D28, D29. Plain arguments, no attack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from scipy.stats import binomtest

from adamant._types import Inputs, Labels, Logits, Mask
from adamant.evaluation.counting import mcnemar
from adamant.evaluation.doctor.finding import Finding, Verdict
from adamant.goals import Untargeted
from adamant.threats import Projectable

BLACK_BOX = 0.002  # D13: as AutoAttack's flag for Square
LOW_PRECISION = 0.001  # D25: successes that float32 takes back
Rows = Mapping[str, Sequence[Any]]


def review(rows: Rows, *, blind: Sequence[str], one_step: Sequence[str] = (), iterated: Sequence[str] = ()) -> tuple[
    Finding, ...
]:  # fmt: skip
    """D13, D15 and D28 of an audit's rows (`status` and `attack`, a line for each row).

    `blind` names the attacks that saw no gradient, `one_step` those of one step and `iterated` those of many, each as
    in the column `attack`. In a suite that goes on with what stands, D15 is of use only if the one-step attack ran
    last.
    """
    n = len(rows["status"])
    by = [a for a, s in zip(rows["attack"], rows["status"], strict=True) if s == "broken"]
    lone = sum(a in blind for a in by)
    found = [black_box(lone, n), sample(rows["status"])]
    if one_step and iterated:
        found.append(_one_step(sum(a in one_step for a in by), n))
    return tuple(found)


def black_box(only: int, rows: int) -> Finding:
    """D13: rows that only a search without gradients broke, after the gradients had had their turn."""
    low = float(binomtest(only, rows).proportion_ci(0.95, method="wilson").low) if rows else 0.0
    share = only / rows if rows else 0.0
    verdict = Verdict.PASS if share <= BLACK_BOX else Verdict.FAIL if low > BLACK_BOX else Verdict.WARN
    return Finding(
        id="D13", name="black box", number=share, verdict=verdict,
        measured=f"searches without gradients alone broke {only} of {rows} rows",
        advice="gradients are masked, or too little was tried with them: raise the budget of both, and add BPDA"
        if verdict > Verdict.PASS else "",
    )  # fmt: skip


def _one_step(only: int, rows: int) -> Finding:
    share = only / max(rows, 1)
    loud = only > max(1.0, BLACK_BOX * rows)
    return Finding(
        id="D15", name="one step", number=share, verdict=Verdict.WARN if loud else Verdict.PASS,
        measured=f"one step alone broke {only} of {rows} rows",
        advice="many steps should do what one does: the loss is bent, or the steps are wrong" if loud else "",
    )  # fmt: skip


def best_kept(met: Mask, returned: Mask) -> Finding:
    """D20: rows that an attack broke on its way (n,) and does not return as broken (n,)."""
    lost = int((met & ~returned).sum())
    return Finding(
        id="D20", name="silent success", number=float(lost), verdict=Verdict.FAIL if lost else Verdict.PASS,
        measured=f"the attack met {int(met.sum())} successes and lost {lost} of them",
        advice="judge every point of the way, not the last alone (adamant.engine does)" if lost else "",
    )  # fmt: skip


def inside(pairs: Iterable[tuple[Inputs, Inputs]], threat: Projectable) -> Finding:
    """D22: adversarial inputs and their originals, measured in float64 against the threat model; none may be outside.

    `pairs` are pieces (m *d) (m *d), of any length, so that they need not be in memory together.
    """
    rows = out = 0
    over = torch.tensor(-torch.inf, dtype=torch.float64)
    for adversarial, original in pairs:
        z, x = adversarial.double(), original.double()
        rows, out = rows + len(z), out + int((~threat.contains(z, x)).sum())
        over = torch.cat([over.view(1), threat.size(z, x) - threat.budget(x).double()]).max()
    if not rows:
        return Finding(
            id="D22", name="threat model", number=None, verdict=Verdict.SKIPPED, measured="no row was broken"
        )
    return Finding(
        id="D22", name="threat model", number=float(out), verdict=Verdict.FAIL if out else Verdict.PASS,
        measured=f"{out} of {rows} adversarial inputs are outside of {type(threat).__name__} or its box; "
        f"the largest exceeds the budget by {float(over):.1e}",
        advice="count these rows as standing, and mend the projection of the attack" if out else "",
    )  # fmt: skip


def precision(claimed: int, held: int) -> Finding:
    """D25: successes of a search in low precision, and how many of them held in float32."""
    lost = (claimed - held) / claimed if claimed else 0.0
    return Finding(
        id="D25", name="precision", number=lost, verdict=Verdict.WARN if lost > LOW_PRECISION else Verdict.PASS,
        measured=f"{claimed - held} of {claimed} successes did not hold in float32",
        advice="search in float32" if lost > LOW_PRECISION else "",
    )  # fmt: skip


def rounded(x: Inputs) -> Inputs:
    """To whole 1/255, as a picture file keeps it; what D26 asks the model with."""
    return (x * 255).round() / 255


def eight_bit(pieces: Iterable[tuple[Logits, Labels, Inputs, Inputs]], threat: Projectable) -> Finding:
    """D26: how many adversarial inputs still fool when rounded.

    `pieces` are logits of `rounded(adversarial)`, labels, originals and adversarial inputs, of any number of rows.
    """
    rows = fooled = held = 0
    for logits, labels, original, adversarial in pieces:
        fools = Untargeted(labels).reached(logits)
        rows, fooled = rows + len(labels), fooled + int(fools.sum())
        held += int((fools & threat.contains(rounded(adversarial), original)).sum())
    if not rows:
        return Finding(id="D26", name="8 bits", number=None, verdict=Verdict.SKIPPED, measured="no row was broken")
    return Finding(
        id="D26", name="8 bits", number=fooled / rows, verdict=Verdict.PASS,
        measured=f"{fooled / rows:.1%} of {rows} adversarial inputs survive rounding to 1/255, {held / rows:.1%} "
        "within the budget",
    )  # fmt: skip


def sample(status: Sequence[str]) -> Finding:
    """D28: how far the accuracy may be from that of all data, for the number of rows alone."""
    n = len(status)
    if not n:
        return Finding(id="D28", name="sample", number=None, verdict=Verdict.SKIPPED, measured="there are no rows")
    stand = n - sum(s in ("wrong_already", "broken") for s in status)
    interval = binomtest(stand, n).proportion_ci(0.95, method="wilson")
    return Finding(
        id="D28", name="sample", number=float(interval.high - interval.low) / 2, verdict=Verdict.PASS,
        measured=f"{stand / n:.1%} of {n} rows stand, of all data {interval.low:.1%} to {interval.high:.1%} (95 %)",
    )  # fmt: skip


def paired(first: Mask, second: Mask) -> float:
    """McNemar's exact p that two models, or two attacks, do as well on the same rows (n,) (n,)."""
    return mcnemar(int((first & ~second).sum()), int((second & ~first).sum()))


def certificate(certified: Mask, broken: Mask) -> Finding:
    """D29: rows that a certificate holds and an attack broke; there are none, or one of the two is wrong."""
    both = certified & broken
    n = int(both.sum())
    first = f", row {int(both.nonzero()[0])} first" if n else ""
    return Finding(
        id="D29", name="certificate", number=float(n), verdict=Verdict.FAIL if n else Verdict.PASS,
        measured=f"{n} of {int(certified.sum())} certified rows were broken{first}",
        advice="the certificate or the attack is in error: nothing of this run can be believed" if n else "",
    )  # fmt: skip
