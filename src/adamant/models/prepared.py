"""What stands before a classifier that takes more than a plain batch: pictures, waveforms and embeddings made ready."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adamant.errors import InputError
from adamant.models.wrap import unwrapped


@final
@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What is done to a picture in [0, 1]: resized, cut, multiplied by `scale`, shifted by `offset`, normalised."""

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    scale: float = 1.0
    offset: float = 0.0
    resized: tuple[int, int] | int | None = None  # height and width, or the shorter of both
    cut: tuple[int, int] | None = None  # from the middle
    way: str = "bilinear"  # as torch's `interpolate` names it

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of what the network takes; None where any size will do."""
        return self.cut or (self.resized if isinstance(self.resized, tuple) else None)

    def __call__(self, x: Tensor) -> Tensor:
        """The pictures x (n c h w) as the network takes them; those that have its size are not resized."""
        if x.ndim != 4:
            raise InputError(f"The model takes pictures (rows, channels, height, width), got {tuple(x.shape)}.")
        if self.size is None or tuple(x.shape[2:]) != self.size:
            x = self._fitted(x)
        x = x * self.scale + self.offset if self.scale != 1 or self.offset else x
        if not self.mean:
            return x
        lead = (1, -1, 1, 1)
        return (x - x.new_tensor(self.mean).view(lead)) / x.new_tensor(self.std).view(lead)

    def _fitted(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        if self.resized is not None:
            if isinstance(self.resized, int):
                short = min(h, w)
                target = (int(h * self.resized / short), int(w * self.resized / short))
            else:
                target = self.resized
            smooth = self.way != "nearest"
            aligned = False if smooth else None
            x = F.interpolate(x, target, mode=self.way, antialias=smooth, align_corners=aligned).clamp(0, 1)
        if self.cut is None:
            return x
        (h, w), (to_h, to_w) = x.shape[2:], self.cut
        if h < to_h or w < to_w:
            raise InputError(f"The model takes pictures of {to_h} x {to_w}, and got {h} x {w}: resize the data.")
        top, left = (h - to_h) // 2, (w - to_w) // 2
        return x[:, :, top : top + to_h, left : left + to_w]


class Pictures(nn.Module):
    """`net` on pictures in [0, 1], prepared inside, so that budgets are in units of a pixel; logits (n k)."""

    def __init__(self, net: nn.Module, prepare: Preparation, *, keyword: str, notes: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.net, self.prepare, self.keyword, self.notes = net, prepare, keyword, notes

    def forward(self, x: Tensor) -> Tensor:
        return unwrapped(self.net(**{self.keyword: self.prepare(x)}))[0]


class Waveforms(nn.Module):
    """`net` on waveforms (n samples) in the user's units; each is brought to mean 0 and variance 1 where `normal`."""

    def __init__(self, net: nn.Module, *, normal: bool, keyword: str, notes: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.net, self.normal, self.keyword, self.notes = net, normal, keyword, notes

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 2:
            raise InputError(f"The model takes waveforms (rows, samples), got {tuple(x.shape)}.")
        if self.normal:
            x = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-7).sqrt()
        return unwrapped(self.net(**{self.keyword: x}))[0]


class Embedded(nn.Module):
    """`net` on the embeddings of texts, (n, length, width + 1); the last channel is the mask, 1 for a word.

    `embed` makes them from token ids. The mask is read as larger than 0.5 or not, and has no gradient, so that no
    change below a half unmasks a padding.
    """

    def __init__(self, net: Any, *, notes: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.net, self.notes = net, notes

    def embed(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """The inputs for token ids (n, length); without a mask every token counts."""
        vectors = self.net.get_input_embeddings()(ids)
        mask = torch.ones_like(ids) if mask is None else mask
        return torch.cat([vectors, mask[..., None].to(vectors)], -1)

    def forward(self, x: Tensor) -> Tensor:
        mask = (x[..., -1] > 0.5).long()
        return unwrapped(self.net(inputs_embeds=x[..., :-1], attention_mask=mask))[0]


_WAYS: Mapping[int, str] = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # PIL.Image.Resampling


def from_config(config: Mapping[str, Any]) -> Preparation:
    """The preparation that an image processor's preprocessor_config.json describes.

    Raises `InputError` for a step that is not known here.
    """
    scale = 255.0  # the processors are made for pictures in 0..255
    if config.get("do_rescale", True):
        scale *= float(config.get("rescale_factor", 1 / 255))
    normal = config.get("do_normalize", bool(config.get("image_mean")))
    mean, std = (_channels(config.get(name)) if normal else () for name in ("image_mean", "image_std"))
    resized, cut = None, None
    if config.get("do_resize", "size" in config) and (size := config.get("size")) is not None:
        resized = _size(size)
    if config.get("do_center_crop", False):
        found = _size(config.get("crop_size") or config.get("size"))
        cut = (found, found) if isinstance(found, int) else found
    way = _WAYS.get(int(config.get("resample", 2)))
    if way is None:
        raise InputError(f"The image processor resamples by method {config.get('resample')}, which is not known here.")
    offset = -1.0 if config.get("rescale_offset") else 0.0
    return Preparation(mean=mean, std=std, scale=round(scale, 9), offset=offset, resized=resized, cut=cut, way=way)


def _channels(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in (values if isinstance(values, (list, tuple)) else [values]))


def _size(size: Any) -> tuple[int, int] | int:
    if isinstance(size, int):
        return (size, size)
    if isinstance(size, (list, tuple)):
        return int(size[0]), int(size[1])
    if "height" in size:
        return int(size["height"]), int(size["width"])
    if "shortest_edge" in size and "longest_edge" not in size:
        return int(size["shortest_edge"])
    raise InputError(f"The image processor asks for pictures of size {size}, which is not known here.")
