"""Gradient ascent along a guess that two queries at a time improve: Bandits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor
from torch.nn import functional as F

from adamant._types import Inputs
from adamant.access import Look, Sight
from adamant.attacks.gradient import climb
from adamant.attacks.pictures import picture
from adamant.batch import Rows, per_row
from adamant.desk import Problem
from adamant.losses import CrossEntropy, Loss
from adamant.threats import L2, Linf
from adamant.threats.balls import unit


@final
@dataclass(frozen=True, kw_only=True)
class Bandits:
    """The gradient is guessed from the last one, tile by tile; two queries mend the guess, and a step follows it.

    Ilyas et al., 2019, arXiv:1807.07978, time and data dependent priors. What is left at None is as the authors have it
    for the norm. Their queries may leave the budget; these stay inside, so that each may be a success, and the point
    in their middle is not looked at.
    """

    steps: int = 5000  # two looks each
    tiles: int = 50  # per side, each with one guess for all its entries; no more than there are entries
    rate: float | None = None  # of the budget, per step; Linf 0.2, L2 0.1
    learning: float | None = None  # how far two queries move the guess; for 3 x 50 x 50 tiles Linf 100, L2 0.1
    explore: float | None = None  # how far the queries turn away from the guess; Linf 1, L2 0.01
    apart: float | None = None  # Euclidean length from the middle to a query, in widths of the box; Linf 0.1, L2 0.01
    loss: Loss = CrossEntropy()
    needs: ClassVar[Sight] = Sight.SCORES
    threats: ClassVar[tuple[type, ...]] = (Linf, L2)

    @dataclass(frozen=True)
    class State(Rows):
        """The query to look at, the middle of the two, and the guess (on Linf before it is squashed to -1..1)."""

        z: Tensor
        middle: Tensor
        guess: Tensor

    def init(self, p: Problem) -> State:
        guess = p.x.new_zeros(len(p.x), *self._grid(p))
        return self.State(self._query(p, p.x, guess, 0, 1), p.x, guess)

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        other = p.look(self._query(p, s.middle, s.guess, t, -1), self.loss)
        _, learning, explore, apart = self._tuned(p)
        rise = ((seen.loss - other.loss) / (apart * explore)).to(s.z).nan_to_num(0.0, 0.0, 0.0)
        guess = s.guess + learning * per_row(rise, s.guess) * self._noise(p, s.guess, t)
        middle = climb(p, s.middle, _spread(p, _squash(p, guess)), self._tuned(p)[0])
        last = t == self.steps - 1
        return self.State(middle if last else self._query(p, middle, guess, t + 1, 1), middle, guess)

    def _grid(self, p: Problem) -> tuple[int, int, int]:
        """Channels, and rows and columns of tiles."""
        _, channels, rows, columns = picture(p.x).shape
        return channels, min(rows, self.tiles), min(columns, self.tiles)

    def _tuned(self, p: Problem) -> tuple[float, float, float, float]:
        # What two queries say of a direction grows with one over the root of how many there are, and on Linf so does
        # what an entry gets of it: the authors' rates are for 3 x 50 x 50, and with fewer would fix the guess at once.
        share = math.prod(self._grid(p)) / 7500
        usual = (0.2, 100 * share, 1.0, 0.1) if isinstance(p.threat, Linf) else (0.1, 0.1 * share**0.5, 0.01, 0.01)
        chosen = (self.rate, self.learning, self.explore, self.apart)
        rate, learning, explore, apart = (b if a is None else a for a, b in zip(chosen, usual, strict=True))
        return rate, learning, explore, apart

    def _noise(self, p: Problem, guess: Tensor, t: int) -> Tensor:
        """The turn away from the guess at this step, of length `explore` or so."""
        noise = p.rng.fold("turn").fold(t).normal(*guess.shape[1:], dtype=guess.dtype)
        return self._tuned(p)[2] * noise / math.prod(guess.shape[1:]) ** 0.5

    def _query(self, p: Problem, middle: Inputs, guess: Tensor, t: int, side: int) -> Inputs:
        toward = unit(p.threat.free(_spread(p, _squash(p, guess) + side * self._noise(p, guess, t))))
        return p.project(middle + self._tuned(p)[3] * p.threat.width * toward)


def _squash(p: Problem, guess: Tensor) -> Tensor:
    """On Linf the guess is between -1 and 1; a step before the squashing is the authors' exponentiated gradient."""
    return guess.tanh() if isinstance(p.threat, Linf) else guess


def _spread(p: Problem, guess: Tensor) -> Inputs:
    """One number per tile as one number per entry."""
    return F.interpolate(guess, size=picture(p.x).shape[-2:], mode="nearest").reshape(p.x.shape)
