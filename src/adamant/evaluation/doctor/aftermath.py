"""What an audit that is over tells of itself: the diagnostics that need its rows and its adversarial inputs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from adamant._types import Inputs, Labels, Logits
from adamant.access import Sight
from adamant.evaluation.acceptance import judged
from adamant.evaluation.audit import Audit
from adamant.evaluation.doctor.finding import Finding
from adamant.evaluation.doctor.reviews import black_box, eight_bit, inside, rounded, sample
from adamant.threats import Linf, Parametric


def aftermath(model: nn.Module, audit: Audit) -> tuple[Finding, ...]:
    """D13, D22, D26 and D28 of an audit of this model."""
    rows, threat = audit.rows, audit.order.threat
    blind = {s.attack for s in audit.stages if s.needs < Sight.GRADIENT}
    lone = sum(a in blind for a in rows["attack"]) if audit.order.access.gives == Sight.GRADIENT else 0
    found = [black_box(lone, len(rows["row"])), sample(rows["status"])]
    # A budget for each row, and parameters, are not to be seen from the kept inputs alone.
    if not isinstance(threat, Parametric) and isinstance(getattr(threat, "eps", None), (int, float)):
        found.append(inside(((p["adversarial"], p["original"]) for p in audit.broken.pieces()), threat))
        if isinstance(threat, Linf) and threat.box == (0.0, 1.0) and len(audit.broken["row"]):
            found.append(eight_bit(_asked(model, audit), threat))
    return tuple(sorted(found, key=lambda f: int(f.id[1:])))


def _asked(model: nn.Module, audit: Audit) -> Iterator[tuple[Logits, Labels, Inputs, Inputs]]:
    label = dict(zip(audit.rows["row"], audit.rows["label"], strict=True))
    for piece in audit.broken.pieces():
        labels = torch.tensor([label[row] for row in piece["row"].tolist()])
        logits = judged(model, rounded(piece["adversarial"]), audit.order.settings)
        yield logits, labels, piece["original"], piece["adversarial"]
