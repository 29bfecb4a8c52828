"""What an audit that is over tells of itself: the diagnostics that need its rows and its adversarial inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
    adversarial, original = audit.broken["adversarial"], audit.broken["original"]
    # A budget for each row, and parameters, are not to be seen from the kept inputs alone.
    if not isinstance(threat, Parametric) and isinstance(getattr(threat, "eps", None), (int, float)):
        found.append(inside(adversarial, original, threat))
        if isinstance(threat, Linf) and threat.box == (0.0, 1.0) and len(adversarial):
            logits = judged(model, rounded(adversarial), audit.order.settings)
            found.append(eight_bit(logits, _labels(audit), original, adversarial, threat))
    return tuple(sorted(found, key=lambda f: int(f.id[1:])))


def _labels(audit: Audit) -> Tensor:
    label = dict(zip(audit.rows["row"], audit.rows["label"], strict=True))
    return torch.tensor([label[row] for row in audit.broken["row"].tolist()])
