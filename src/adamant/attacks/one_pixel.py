"""One pixel (or a few) by differential evolution: where, and in what colour; scores only."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar, final

import torch
from torch import Tensor

from adamant._types import Inputs
from adamant.access import Look, Sight
from adamant.batch import Rows, per_row
from adamant.desk import Problem
from adamant.errors import InputError
from adamant.losses import CrossEntropy, Loss
from adamant.random import Rng
from adamant.threats import L0

_ENTRIES = 2**16  # of a row that are looked at at once: a big population of big pictures goes in parts


@final
@dataclass(frozen=True, kw_only=True)
class OnePixel:
    """Evolves a population of pixels with their colours; a child is one member plus half the difference of two others.

    Su et al., 2019, arXiv:1710.08864, for L0 with few pixels (`L0(1, pixels=True)`) or entries. No crossover; a child
    replaces the parent of its number if its score is better. Genes that leave their range are drawn again.
    """

    steps: int = 100  # generations
    population: int = 400
    scale: float = 0.5  # of the difference
    loss: Loss = CrossEntropy()
    needs: ClassVar[Sight] = Sight.SCORES
    threats: ClassVar[tuple[type, ...]] = (L0,)

    @dataclass(frozen=True)
    class State(Rows):
        """The best member as an input, and of all members the genes and the score."""

        z: Tensor
        genes: Tensor  # (n, pixels, population, coordinates and colours), all on [0, 1]
        score: Tensor  # (n, population)

    def init(self, p: Problem) -> State:
        if self.population < 4:
            raise InputError(
                f"A child has three parents and takes the place of a fourth: got {self.population} members."
            )
        rng, (grid, channels) = p.rng.fold("start"), _layout(p)
        most = int(_count(p).max())
        place = rng.uniform(most, self.population, len(grid), dtype=p.x.dtype)
        colour = rng.fold("colour").normal(most, self.population, channels, dtype=p.x.dtype) / 2 + 0.5
        genes = torch.cat([place, colour.clamp(0, 1)], 3)
        score = self._score(p, genes)
        return self.State(_best(p, genes, score), genes, score)

    def step(self, p: Problem, s: State, seen: Look, t: int) -> State:
        rng = p.rng.fold("generation").fold(t)
        one, two, three = (s.genes.gather(2, i[:, None, :, None].expand_as(s.genes)) for i in self._parents(rng))
        child = one + self.scale * (two - three)
        again = rng.fold("again").uniform(*child.shape[1:], dtype=child.dtype)
        child = torch.where((child < 0) | (child > 1), again, child)
        score = self._score(p, child)
        better = score > s.score
        genes = torch.where(better[:, None, :, None], child, s.genes)
        score = torch.where(better, score, s.score)
        return self.State(_best(p, genes, score), genes, score)

    def _parents(self, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
        """Three different members for each child, (n, population) each."""
        k = self.population
        one = rng.fold("one").integers(k, k)
        two = rng.fold("two").integers(k - 1, k) + 1  # how far from the first
        three = rng.fold("three").integers(k - 2, k) + 1
        three = three + (three >= two)
        return one, (one + two) % k, (one + three) % k

    def _score(self, p: Problem, genes: Tensor) -> Tensor:
        parts = genes.split(max(1, _ENTRIES // p.x[0].numel()), dim=2)
        return torch.cat([p.looks(_paint(p, part), self.loss).loss for part in parts]).mT.double()


def _layout(p: Problem) -> tuple[tuple[int, ...], int]:
    """The sides of the grid of what is coloured, and the channels of a colour: pixels, or single entries."""
    assert isinstance(p.threat, L0)
    return (tuple(p.x.shape[2:]), p.x.shape[1]) if p.threat.pixels else (tuple(p.x.shape[1:]), 1)


def _count(p: Problem) -> Tensor:
    """How many pixels (or entries) each row may change, (n,); more than there are make no difference."""
    return p.threat.budget(p.x).floor().clamp(max=prod(_layout(p)[0])).long()


def _paint(p: Problem, genes: Tensor) -> Tensor:
    """The inputs (k, n, *d) that genes (n, pixels, k, genes) stand for."""
    assert isinstance(p.threat, L0)
    (grid, channels), (low, high) = _layout(p), p.threat.box
    sides = torch.tensor(grid, device=genes.device)
    where = (genes[..., : len(grid)] * sides).long().clamp(max=sides - 1)
    place = where[..., 0]
    for i, side in enumerate(grid[1:], 1):
        place = place * side + where[..., i]
    colour = low + (high - low) * genes[..., len(grid) :]
    count, z = _count(p), p.x.reshape(len(p.x), 1, channels, -1).repeat(1, genes.shape[2], 1, 1)
    for i in range(genes.shape[1]):  # one after another: two pixels in one place must not depend on luck
        at = place[:, i, :, None, None].expand(-1, -1, channels, 1)
        paint = torch.where((i < count)[:, None, None, None], colour[:, i, :, :, None], z.gather(3, at))
        z = z.scatter(3, at, paint)
    z = z.transpose(0, 1).reshape(-1, *p.x.shape)
    return torch.where(p.threat.free(torch.ones_like(p.x)) > 0, z, p.x)


def _best(p: Problem, genes: Tensor, score: Tensor) -> Inputs:
    top = score.argmax(1)
    return _paint(p, genes.gather(2, per_row(top, genes).expand(-1, genes.shape[1], 1, genes.shape[3])))[0]
