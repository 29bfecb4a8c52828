"""The tools of the corruptions: kernels, streaks, zooms, warps and clouds, all row by row."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from adamant.random import Rng


def bell(sigma: float, truncate: float, like: Tensor) -> Tensor:
    """A normalised Gaussian on -r..r, r = round(truncate * sigma)."""
    r = int(truncate * sigma + 0.5)
    t = torch.arange(-r, r + 1, dtype=torch.float64)
    k = torch.exp(-0.5 * (t / sigma) ** 2)
    return (k / k.sum()).to(like)


def _padded(x: Tensor, by: int, axis: int, mode: str) -> Tensor:
    size = x.shape[axis]
    at = torch.arange(-by, size + by, device=x.device)
    if mode == "nearest":
        at = at.clamp(0, size - 1)
    elif mode == "mirror":  # d c b | a b c d
        at = _fold(at, 2 * size - 2) if size > 1 else torch.zeros_like(at)
    else:  # reflect: d c b a | a b c d
        at = at.remainder(2 * size)
        at = torch.minimum(at, 2 * size - 1 - at)
    return x.index_select(axis, at)


def _fold(at: Tensor, period: int) -> Tensor:
    at = at.remainder(period)
    return torch.minimum(at, period - at)


def convolve(x: Tensor, kernel: Tensor, mode: str = "nearest") -> Tensor:
    """Each channel of x (n, c, h, w) by the same odd kernel (a, b), with an edge of the mode's kind."""
    a, b = kernel.shape
    x_padded = _padded(_padded(x, a // 2, 2, mode), b // 2, 3, mode)
    n, c, h, w = x_padded.shape
    # In float64, and rounded at the end: the kernels for one picture and for many sum up in different orders.
    y = F.conv2d(x_padded.reshape(n * c, 1, h, w).double(), kernel.to(x.device).double()[None, None])
    return y.view(x.shape).to(x.dtype)


def gaussian(x: Tensor, sigma: float, *, truncate: float = 4.0, mode: str = "nearest") -> Tensor:
    """Gaussian blur with a sigma in pixels."""
    if int(truncate * sigma + 0.5) < 1:
        return x
    k = bell(sigma, truncate, x)
    return convolve(convolve(x, k[:, None], mode), k[None], mode)


def streaks(x: Tensor, radius: int, sigma: float, degrees: Tensor) -> Tensor:
    """Motion blur along one angle per row (n,): 2 radius + 1 whole steps to one side, with falling Gaussian weights."""
    n, c, h, w = x.shape
    steps = torch.arange(2 * radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (steps / sigma) ** 2)
    weights = (weights / weights.sum()).tolist()
    angle = degrees.double() * (math.pi / 180)
    down, right = angle.sin(), angle.cos()
    ys, xs = torch.arange(h, device=x.device), torch.arange(w, device=x.device)
    flat, out = x.reshape(n, c, h * w), torch.zeros_like(x)
    for step, weight in enumerate(weights):
        if weight < 1e-6:
            break
        row = (ys + (down * step).round().long()[:, None]).clamp(0, h - 1)
        column = (xs + (right * step).round().long()[:, None]).clamp(0, w - 1)
        at = (row[:, :, None] * w + column[:, None, :]).view(n, 1, h * w).expand(n, c, h * w)
        out += weight * flat.gather(2, at).view(x.shape)
    return out


def zoomed(x: Tensor, factor: float) -> Tensor:
    """The middle of the picture, enlarged by the factor to the size of the whole."""
    h, w = x.shape[2:]
    ch, cw = math.ceil(h / factor), math.ceil(w / factor)
    top, left = (h - ch) // 2, (w - cw) // 2
    size = (max(h, round(ch * factor)), max(w, round(cw * factor)))
    big = F.interpolate(x[:, :, top : top + ch, left : left + cw], size=size, mode="bilinear", align_corners=True)
    top, left = (big.shape[2] - h) // 2, (big.shape[3] - w) // 2
    return big[:, :, top : top + h, left : left + w]


def sample(x: Tensor, rows: Tensor, columns: Tensor, *, mode: str) -> Tensor:
    """Bilinear reading of x at places (n, h, w) in pixels; outside, the mirror ("mirror") or the edge doubled."""
    h, w = x.shape[2:]
    if mode == "mirror":
        rows, columns, ends = _fold(rows, 2 * h - 2), _fold(columns, 2 * w - 2), (h - 1, w - 1)
    else:
        rows = (_fold(rows + 0.5, 2 * h) - 0.5).clamp(0, h - 1)
        columns = (_fold(columns + 0.5, 2 * w) - 0.5).clamp(0, w - 1)
        ends = (h - 1, w - 1)
    grid = torch.stack([columns * (2 / ends[1]) - 1, rows * (2 / ends[0]) - 1], dim=-1).to(x)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)


def plasma(rng: Rng, h: int, w: int, decay: float, like: Tensor) -> Tensor:
    """Clouds (n, 1, h, w) in [0, 1] by midpoint displacement on a torus whose side is a power of two (Fournier,
    Fussell & Carpenter, 1982, doi:10.1145/358523.358553), cut to the size; a small decay makes them rough.
    """
    side, level, wibble = 1 << (max(h, w) - 1).bit_length(), 0, 100.0
    field = torch.zeros(len(rng.key), 1, 1, dtype=torch.float64, device=rng.key.device)
    while field.shape[1] < side:
        k, reach, luck = field.shape[1], wibble * wibble, rng.fold("plasma").fold(level)
        noise = luck.uniform(3, k, k, dtype=torch.float64) * (2 * reach) - reach
        right = field.roll(-1, 2)
        middle = (field + right + field.roll(-1, 1) + right.roll(-1, 1)) / 4 + noise[:, 0]
        upper = (field + right + middle + middle.roll(1, 1)) / 4 + noise[:, 1]
        lower = (field + field.roll(-1, 1) + middle + middle.roll(1, 2)) / 4 + noise[:, 2]
        finer = field.new_empty(len(field), 2 * k, 2 * k)
        finer[:, ::2, ::2], finer[:, 1::2, 1::2] = field, middle
        finer[:, ::2, 1::2], finer[:, 1::2, ::2] = upper, lower
        field, level, wibble = finer, level + 1, wibble / decay
    low, high = field.amin((1, 2), keepdim=True), field.amax((1, 2), keepdim=True)
    field = (field - low) / (high - low)
    return field[:, None, :h, :w].to(like)
