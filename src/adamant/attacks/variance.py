"""Momentum attacks whose gradients are tuned by those of the neighbours, so that examples carry further."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Inputs
from adamant.access import Look, Sight
from adamant.attacks.gradient import ahead, climb, gather
from adamant.attacks.starts import Here, Start
from adamant.batch import PerRow, Rows
from adamant.desk import Problem
from adamant.errors import InputError
from adamant.losses import CrossEntropy, Loss
from adamant.threats import L1, L2, Linf


@final
@dataclass(frozen=True, kw_only=True)
class VMIFGSM:
    """MIFGSM whose gradient is moved by what those of random neighbours differed, one step before, from its own.

    Wang & He, 2021, arXiv:2103.15571; with `nesterov` it is VNI-FGSM, on NIFGSM. Neighbours stay in the box.
    """

    steps: int = 10
    rate: float = 0.1  # of the budget, per step
    decay: float = 1.0
    neighbours: int = 20
    reach: float = 1.5  # how far away they are at most, in budgets
    nesterov: bool = False
    start: Start = Here()
    loss: Loss = CrossEntropy()
    needs: ClassVar[Sight] = Sight.GRADIENT
    roams: ClassVar[bool] = True
    threats: ClassVar[tuple[type, ...]] = (Linf, L2, L1)

    @dataclass(frozen=True)
    class State(Rows):
        """Where to look, where it is, the momentum, and what the neighbours' gradients add to that at the centre."""

        z: Tensor
        at: Tensor
        m: Tensor
        v: Tensor

    def init(self, p: Problem) -> State:
        if self.neighbours < 1 or not self.reach > 0:
            raise InputError(
                f"Variance tuning needs neighbours, some way off, got neighbours={self.neighbours} and "
                f"reach={self.reach}: without them use MIFGSM or NIFGSM."
            )
        z = self.start(p)
        return self.State(z, z, torch.zeros_like(z), torch.zeros_like(z))

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        m = gather(s.m, seen.slope + s.v, self.decay)
        at = climb(p, s.at, m, self.rate)
        if t == self.steps - 1:
            return self.State(at, at, m, s.v)
        z = p.project(at + ahead(p, m, self.rate * self.decay)) if self.nesterov else at
        return self.State(z, at, m, self._around(p, s.at, t) - seen.slope)

    def _around(self, p: Problem, z: Inputs, t: int) -> Inputs:
        """The mean gradient of the neighbours."""
        near, rng, total = p.threat.at(PerRow(self.reach * p.threat.budget(z))), p.rng.fold("neighbours").fold(t), 0 * z
        for i in range(self.neighbours):
            total = total + p.look(near.sample(z, rng.fold(i)), self.loss, grad=True).slope
        return total / self.neighbours
