"""Networks whose right answer is known: affine ones, whose best adversarial point is a linear programme away."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from adamant.random import Rng
from adamant.threats import L0, L1, L2, Linf, Projectable


@final
class Affine(nn.Module):
    """logits = W x + b on flattened inputs, seeded."""

    def __init__(
        self, shape: tuple[int, ...], classes: int, *, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        size = torch.Size(shape).numel()
        self.weight = nn.Parameter(Rng.of(seed, classes).fold("weight").normal(size, dtype=dtype))
        self.bias = nn.Parameter(Rng.of(seed, classes).fold("bias").normal(dtype=dtype) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


@final
class Bent(nn.Module):
    """A small network with a hidden layer, batch norm and dropout: modes and buffers that must survive an attack."""

    def __init__(
        self, shape: tuple[int, ...], classes: int, *, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.one = Affine(shape, 16, seed=seed, dtype=dtype)
        self.norm = nn.BatchNorm1d(16, dtype=dtype)
        self.drop = nn.Dropout(0.5)
        self.two = Affine((16,), classes, seed=seed + 1, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.drop(self.norm(self.one(x)).relu()))


def best_margin(
    model: Affine, x: Tensor, label: Tensor, threat: Projectable, *, target: Tensor | None = None
) -> Tensor:
    """The largest margin of a wrong class (or of the target over every other) that the threat model holds, float64.

    Untargeted, a positive value means that the row can be broken, a negative one that it cannot. Targeted with more
    than two classes it is a bound from above: the programmes of the other classes are solved apart.
    """
    weight, bias, flat = model.weight.detach().double(), model.bias.detach().double(), x.double().flatten(1)
    n, k = len(x), len(weight)
    other = torch.arange(k, device=x.device).repeat(n)
    own = (label if target is None else target).repeat_interleave(k)
    to, off = (other, own) if target is None else (own, other)
    w, at = weight[to] - weight[off], flat.repeat_interleave(k, 0)
    eps = threat.budget(x).double().repeat_interleave(k)[:, None]
    gap = (w * at).sum(1) + bias[to] - bias[off] + _gain(w, at, eps, threat)
    gap = torch.where(to == off, -torch.inf if target is None else torch.inf, gap).view(n, k)
    return gap.amax(1) if target is None else gap.amin(1)


def _gain(w: Tensor, x: Tensor, eps: Tensor, threat: Projectable) -> Tensor:
    """max <w, d> over the d that the threat model allows at x."""
    assert isinstance(threat, (Linf, L2, L1, L0))
    low, high = threat.box
    room = torch.where(w > 0, high - x, x - low)
    worth = w.abs()
    if isinstance(threat, Linf):
        return (worth * room.minimum(eps)).sum(1)
    if isinstance(threat, L0):
        return (worth * room).topk(min(int(eps.max()), x.shape[1]), dim=1).values.sum(1)
    if isinstance(threat, L1):  # the dearest entries first, each as far as it goes
        order = worth.argsort(dim=1, descending=True)
        worth, room = worth.gather(1, order), room.gather(1, order)
        before = room.cumsum(1) - room
        return (worth * (eps - before).clamp_min(0).minimum(room)).sum(1)
    low_s, high_s = torch.zeros_like(eps), torch.full_like(eps, 1e9)
    for _ in range(110):  # d = min(s |w|, room) with the s that spends the budget
        s = (low_s + high_s) / 2
        spent = (s * worth).minimum(room).norm(dim=1, keepdim=True)
        low_s, high_s = torch.where(spent <= eps, s, low_s), torch.where(spent <= eps, high_s, s)
    return (worth * (low_s * worth).minimum(room)).sum(1)
