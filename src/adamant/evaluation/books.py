"""The books of an audit: what is known of the rows of a chunk so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adamant._types import Inputs, Labels, Logits, Mask
from adamant.adversary import Outcome, Status
from adamant.batch import PerRow
from adamant.calling import Settings
from adamant.evaluation.parts import COLUMNS, Part, Stage
from adamant.threats import Projectable

SMALLEST = "smallest change"


class Books:
    """A line for every row of a chunk, and one for every stage."""

    def __init__(self, x: Inputs, y: Labels, ids: Tensor, logits: Logits, wrong: Mask, stages: Sequence[Stage]) -> None:
        n = len(x)
        self.x, self.y, self.ids, self.clean = x, y, ids, logits
        self.adversarial = x.clone()
        self.wrong = wrong.clone()
        self.broken, self.invalid, self.spent = (torch.zeros(n, dtype=torch.bool) for _ in range(3))
        self.attack: list[str | None] = [None] * n
        self.size, self.loss, self.distance = (torch.full((n,), torch.nan, dtype=torch.float64) for _ in range(3))
        self.forwards, self.backwards, self.first = (torch.zeros(n, dtype=torch.int64) for _ in range(3))
        self.stages = list(stages)

    def limited(self, settings: Settings, todo: Tensor) -> Settings:
        """The settings for another run on some rows: a limit of looks is one for the audit, whatever runs in it."""
        most = settings.max_looks
        if most is None or not bool(self.forwards.any()):
            return settings
        allowed = most.values[todo] if isinstance(most, PerRow) else most
        return replace(settings, max_looks=PerRow(allowed - self.forwards[todo]))

    def enter(self, todo: Tensor, out: Outcome, ran: Sequence[int], holds: Mask, *, again: bool) -> None:
        """What the suite did to some rows; `ran` says which stages its parts are, `holds` which successes count."""
        before = self.wrong[todo]
        self.wrong[todo] |= out.status == Status.WRONG_ALREADY
        right = ~self.wrong[todo]
        turned, holds = int((before ^ self.wrong[todo]).sum()), holds & right
        parts = F.pad(out.parts, (0, 0, 0, len(ran) - out.parts.shape[1]))  # when all fell early the last never ran
        parts[:, 0, 2] += out.checks - parts[:, :, 2].sum(1)  # the clean look
        for part, stage in enumerate(ran):
            mine, fallen = right & (out.part == part), int((holds & (out.part < part)).sum())
            costs = parts[:, part].sum(0).tolist()
            self.stages[stage] = self.stages[stage].plus(
                replace(
                    Stage.nothing(self.stages[stage]),
                    # Who is attacked again had entered every stage, for all that was known then.
                    entered=(-turned if again else int(right.sum())) - fallen,
                    broke=int((mine & holds).sum()),
                    forwards=costs[0],
                    backwards=costs[1],
                    checks=costs[2],
                    rejected=int((mine & ~holds).sum()),
                )
            )
        self._blind(todo, out)
        self.forwards[todo] += out.forwards
        self.backwards[todo] += out.backwards
        self.invalid[todo] |= out.status == Status.INVALID
        self.spent[todo] |= out.status == Status.OUT_OF_BUDGET
        self._break(todo, out, holds, [self.stages[i].attack for i in ran])

    def clock(self, stage: int, seconds: float) -> None:
        """Time that a stage took."""
        self.stages[stage] = replace(self.stages[stage], seconds=self.stages[stage].seconds + seconds)

    def measure(
        self,
        todo: Tensor,
        out: Outcome,
        holds: Mask,
        threat: Projectable,
        seconds: float,
    ) -> None:
        """The smallest changes that were found, by the last stage; one within the budget breaks a row that stood."""
        self.distance[todo[holds]] = torch.fmin(self.distance[todo[holds]], out.size[holds])
        self.forwards[todo] += out.forwards
        self.backwards[todo] += out.backwards
        stood = ~self.broken[todo]
        fell = holds & stood & threat.contains(out.x_adv, self.x[todo])
        costs = out.parts.sum((0, 1)).tolist()
        self.stages[-1] = replace(
            self.stages[-1],
            entered=int(stood.sum()),
            broke=int(fell.sum()),
            forwards=costs[0],
            backwards=costs[1],
            checks=int(out.checks.sum()),
            seconds=seconds,
        )
        self._break(todo, replace(out, part=torch.zeros_like(out.part)), fell, [SMALLEST])

    def _blind(self, todo: Tensor, out: Outcome) -> None:
        """Note on the last stage on how many rows nothing that was tried has a number, or is other than the input."""
        still = (out.x_adv == self.x[todo]).flatten(1).all(1)
        nothing = int((~out.broken & (out.forwards > 0) & (out.loss.isnan() | still)).sum())
        self.stages[-1] = replace(self.stages[-1], blind=self.stages[-1].blind + nothing)

    def _break(self, todo: Tensor, out: Outcome, holds: Mask, names: Sequence[str]) -> None:
        fell = todo[holds]
        self.broken[fell], self.spent[fell] = True, False
        self.adversarial[fell], self.size[fell], self.loss[fell] = out.x_adv[holds], out.size[holds], out.loss[holds]
        self.distance[fell] = torch.fmin(self.distance[fell], out.size[holds])
        self.first[fell] = self.forwards[fell]
        for i, part in zip(fell.tolist(), out.part[holds].tolist(), strict=True):
            self.attack[i] = names[part]

    def _status(self, row: int) -> str:
        verdicts = ((self.wrong, Status.WRONG_ALREADY), (self.broken, Status.BROKEN), (self.invalid, Status.INVALID))
        for mask, status in (*verdicts, (self.spent, Status.OUT_OF_BUDGET)):
            if mask[row]:
                return status.name.lower()
        return Status.ROBUST.name.lower()

    def part(self, after: Logits) -> Part:
        """The finished chunk; `after` are the logits of the adversarial inputs."""
        clean, adv = self.clean.double().softmax(1).max(1), after.double().softmax(1).max(1)
        broken = self.broken.tolist()

        def where_broken(values: Tensor) -> list[Any]:
            return [v if b else None for v, b in zip(values.tolist(), broken, strict=True)]

        columns: dict[str, list[Any]] = {
            "row": self.ids.tolist(),
            "label": self.y.tolist(),
            "clean_prediction": clean.indices.tolist(),
            "clean_confidence": clean.values.tolist(),
            "status": [self._status(i) for i in range(len(self.y))],
            "attack": self.attack,
            "adversarial_prediction": where_broken(adv.indices),
            "adversarial_confidence": where_broken(adv.values),
            "size": where_broken(self.size),
            "loss": where_broken(self.loss),
            "forwards": self.forwards.tolist(),
            "backwards": self.backwards.tolist(),
            "first_success": where_broken(self.first),
            "distance": [None if d != d else d for d in self.distance.tolist()],
        }
        assert tuple(columns) == COLUMNS
        kept = {
            "row": self.ids[self.broken],
            "original": self.x[self.broken],
            "adversarial": self.adversarial[self.broken],
        }
        return Part(columns, kept, tuple(self.stages))
