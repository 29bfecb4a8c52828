"""Learned attacks: a network that was trained to make changes, asked once for each input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from adamant.access import Look, Sight
from adamant.batch import Rows
from adamant.desk import Problem
from adamant.errors import InputError
from adamant.losses import Loss, Margin
from adamant.models.generators import Changes, changed, draw, load_changes


@final
@dataclass(frozen=True)
class _State(Rows):
    """Where it looks."""

    z: Tensor


@final
@dataclass(frozen=True, kw_only=True)
class AdvGAN:
    """What a trained generator makes of each input, and nothing else (Xiao et al., 2018, arXiv:1801.02610).

    `generator` is the file of a game that `adamant generate --model advgan` played; where `sha256` is given, the
    file's must begin so. Within another budget than that of the training the change is made larger or smaller with it,
    and the projection of the threat model has the last word. Raises InputError for inputs of another shape.
    """

    generator: str = "advgan.safetensors"
    sha256: str | None = None
    loss: Loss = Margin()
    steps: ClassVar[int] = 0
    needs: ClassVar[Sight] = Sight.LABELS

    def init(self, p: Problem) -> _State:
        return _State(changed(_network(self.generator, self.sha256, p, noise=False), p.x, p.threat).detach())

    def step(self, p: Problem, s: _State, seen: Look, t: int) -> _State:
        return s


@final
@dataclass(frozen=True, kw_only=True)
class NAG:
    """Changes drawn from a generator that knows no input: each is tried on all rows, one after another.

    After Mopuri et al., 2018, arXiv:1712.03390. The t-th change is the same whatever the rows and the seed, so each is
    a universal one. File and `sha256` are as of `AdvGAN`.
    """

    generator: str = "nag.safetensors"
    sha256: str | None = None
    steps: int = 9  # one more draw than steps
    loss: Loss = Margin()
    needs: ClassVar[Sight] = Sight.LABELS

    def init(self, p: Problem) -> _State:
        return self.step(p, None, None, -1)

    def step(self, p: Problem, s: _State | None, seen: Look | None, t: int) -> _State:
        net = _network(self.generator, self.sha256, p, noise=True)
        return _State(changed(net, p.x, p.threat, draw(net, t + 1).to(p.x)).detach())


def _network(path: str, sha256: str | None, p: Problem, *, noise: bool) -> Changes:
    """The generator in the file, if it is for such inputs."""
    net = load_changes(path, p.x, wanted=sha256)
    shape, own = tuple(p.x.shape[1:]), net.outline
    if bool(own.noise) != noise:
        kind = "noise: attack with NAG" if own.noise else "the input: attack with AdvGAN"
        raise InputError(f"The generator at {path} makes its changes from {kind}(generator=...).")
    if own.shape != shape:
        what = "parameters" if p.change is not None else "inputs"
        raise InputError(f"The generator at {path} changes inputs of shape {own.shape}, and these {what} are {shape}.")
    return net
