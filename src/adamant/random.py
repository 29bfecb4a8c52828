"""Counter-based randomness: a draw depends on the seed, the row and the reason, and on nothing else.

Each row owns a SplitMix64 stream (Steele, Lea & Flood, 2014, doi:10.1145/2660193.2660195), read by position.
Integer arithmetic makes the bits equal on every device; only the transform to normals rounds differently.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from adamant.batch import Rows


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MUL_1 = _signed(0xBF58476D1CE4E5B9)
_MUL_2 = _signed(0x94D049BB133111EB)


def _shift(z: Tensor, by: int) -> Tensor:
    return (z >> by).bitwise_and_((1 << (64 - by)) - 1)  # int64 shifts keep the sign; the mask makes them logical


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)).mul_(_MUL_1)
    z = (z ^ _shift(z, 27)).mul_(_MUL_2)
    return z ^ _shift(z, 31)


def _word(reason: int | str) -> int:
    data = reason.encode() if isinstance(reason, str) else reason.to_bytes(16, "little", signed=True)
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)


@dataclass(frozen=True)
class Rng(Rows):
    """One stream of random numbers for each row.

    A draw is a pure function of the stream: drawing twice gives the same numbers, so every use folds in a reason.
    """

    key: Tensor  # (n,) int64

    @staticmethod
    def of(seed: int, rows: int | Tensor) -> Rng:
        """Streams for rows 0..n-1, or for the row numbers given."""
        numbers = torch.arange(rows) if isinstance(rows, int) else rows.long()
        return Rng(_mix(_mix(numbers + 1) + _word(seed)))

    def fold(self, reason: int | str | Tensor) -> Rng:
        """Independent streams for the same rows, one family for each reason; a tensor (n,) has one for each row."""
        return Rng(_mix(self.key ^ (_mix(reason + 1) if isinstance(reason, Tensor) else _word(reason))))

    def to(self, device: torch.device) -> Rng:
        """The same streams on another device."""
        return Rng(self.key.to(device))

    def _bits(self, shape: Sequence[int]) -> Tensor:
        counter = torch.arange(1, math.prod(shape) + 1, device=self.key.device).mul_(_GOLDEN)
        return _mix(self.key[:, None] + counter).view(len(self.key), *shape)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform on [0, 1), (n, *shape)."""
        wide = dtype == torch.float64
        return _shift(self._bits(shape), 11 if wide else 40).to(dtype).mul_(2.0 ** (-53 if wide else -24))

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal (n, *shape), by Box and Muller (1958)."""
        radius = (1 - self.fold("radius").uniform(*shape, dtype=dtype)).log_().mul_(-2).sqrt_()
        return self.fold("angle").uniform(*shape, dtype=dtype).mul_(2 * math.pi).cos_().mul_(radius)

    def sign(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """-1 or +1 with equal chance, (n, *shape)."""
        return _shift(self._bits(shape), 63).to(dtype).mul_(2).sub_(1)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Whole numbers 0..high-1, (n, *shape); the bias of the scaling is below high / 2^53."""
        return self.uniform(*shape, dtype=torch.float64).mul_(high).long()


@lru_cache(maxsize=4)
def permutation(n: int, seed: int, reason: int | str) -> Tensor:
    """A random order of 0..n-1; the caller must not write into it."""
    return Rng.of(seed, n).fold(reason).key.argsort(stable=True)


def blend(seed: int, step: int) -> int:
    """One seed from two numbers, for code that draws from torch's own generators."""
    return int(Rng.of(seed, torch.tensor([step])).key) & (2**63 - 1)


@contextmanager
def sealed(seed: int) -> Generator[None]:
    """Give code that draws from torch's global generators (dropout, a noisy model) a fixed seed, and put them back."""
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    before = torch.get_rng_state()
    before_cuda = torch.cuda.get_rng_state_all() if cuda else []
    torch.default_generator.manual_seed(seed & (2**63 - 1))
    if cuda:
        torch.cuda.manual_seed_all(seed & (2**63 - 1))
    try:
        yield
    finally:
        torch.set_rng_state(before)
        if cuda:
            torch.cuda.set_rng_state_all(before_cuda)
