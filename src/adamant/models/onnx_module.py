"""OnnxModel: an ONNX graph as the house calls a model, whatever batch and layout the graph was exported for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adamant.access import Sight
from adamant.errors import InputError
from adamant.models.graph import GraphModule, Port
from adamant.models.layout import fits, laid_out
from adamant.models.onnx_files import with_weights


class Source:
    """The ModelProto that a model was read from, for saving; copies of the model share it."""

    def __init__(self, proto: Any) -> None:
        self.proto = proto

    def __deepcopy__(self, memo: Any) -> Source:
        return self


class OnnxModel(nn.Module):
    """`core` from a batch (n *d) to logits (n k), with what the graph's input asks for done around it.

    A graph for batches of a fixed size is called on batches of that size, filled up with copies of a row; one for a
    single input without a batch, on row after row. Pictures are laid out as the graph takes them, and cast to its type.
    `shows` is what may be seen of the model, `notes` what one should know.
    The mode makes no difference: a graph is exported for evaluation.
    """

    def __init__(
        self,
        core: Callable[[Tensor], Tensor],
        port: Port,
        *,
        free: bool,
        shows: Sight,
        notes: tuple[str, ...],
        source: Source,
    ) -> None:
        super().__init__()
        self.core, self.port, self.free = core, port, free
        self.shows, self.notes, self.source = shows, notes, source
        if not isinstance(core, nn.Module):  # no weights of torch's: an audit knows the model by the digest of its file
            digest = hashlib.sha256(source.proto.SerializeToString()).digest()
            self.register_buffer("digest", torch.tensor(list(digest), dtype=torch.uint8))

    @property
    def suffix(self) -> str:
        """Of its own kind of file."""
        return ".onnx"

    def save(self, path: Path) -> None:
        """Write the graph that was read, with the weights of now; a softmax that was left out is there again.

        Raises InputError for a model that torch does not compute.
        """
        if not isinstance(self.core, GraphModule):
            raise InputError("This ONNX model is run outside of torch: its weights are those of its file.")
        path.write_bytes(with_weights(self.source.proto, self.core.weights()))

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_floating_point():
            raise InputError(f"The ONNX model is asked with {x.dtype}; give it real numbers.")
        if not len(x):
            return self(x.new_zeros(1, *x.shape[1:]))[:0]
        x, rows = self._laid_out(x.to(self.port.dtype))
        if self.free:
            return self.core(x)
        if rows == 0:
            return torch.stack([self.core(row) for row in x])
        return torch.cat([self._filled(part, rows) for part in x.split(rows)])

    def _filled(self, part: Tensor, rows: int) -> Tensor:
        spare = rows - len(part)
        if spare:
            part = torch.cat([part, part[:1].expand(spare, *part.shape[1:])])
        y = self.core(part)
        return (y[None] if y.ndim == 1 and rows == 1 else y)[: rows - spare]

    def _laid_out(self, x: Tensor) -> tuple[Tensor, int]:
        """The batch as the graph takes it, and how many rows it takes at once; 0 for an input without a batch."""
        sizes = self.port.sizes
        if sizes is None:
            return x, len(x)
        batched = len(sizes) > 1 and sizes[0] is None  # what is free comes first because it counts rows
        if not batched and len(sizes) == x.ndim - 1 and fits(x.shape[1:], sizes):
            return x, 0
        rows = sizes[0] if sizes and sizes[0] is not None else len(x)
        return laid_out(x, sizes[1:]), rows
