"""Models that show scores or labels only: any function from a batch of inputs to its answers, as a module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from adamant._types import Logits
from adamant.access import Sight
from adamant.errors import InputError, ModelError

_SURE = 1e-3  # how far from 1 probabilities may add up


@runtime_checkable
class Output(Protocol):
    """What the answers of a function are, and how logits are made of them."""

    @property
    def shows(self) -> Sight: ...

    def __call__(self, answer: Any, rows: int, classes: int | None) -> Logits:
        """Logits (rows, classes), on the processor, of the function's answer; raises ModelError where it is another."""
        ...


@final
@dataclass(frozen=True)
class Probabilities:
    """Probabilities (n k), or (n,) or (n 1) of class 1; the logits are their logarithms, as softmax(log p) = p.

    A probability of zero counts as the smallest number that the type holds: a larger floor would hide how near it is.
    """

    @property
    def shows(self) -> Sight:
        return Sight.SCORES

    def __call__(self, answer: Any, rows: int, classes: int | None) -> Logits:
        p = _table(answer, rows, classes, "probabilities")
        if p.shape[1] == 1:
            p = torch.cat([1 - p, p], 1)
        odd = (p < 0) | (p > 1 + _SURE)
        if bool(odd.any()) or bool(((p.sum(1) - 1).abs() > _SURE).any()):
            row = int((odd.any(1) | ((p.sum(1) - 1).abs() > _SURE)).nonzero()[0])
            raise ModelError(
                f"The function's answer to row {row} of its batch is {p[row].tolist()[:5]}, which are no probabilities "
                "that add up to 1: say output=Scores()."
            )
        return p.clamp_min(torch.finfo(p.dtype).tiny).log()


@final
@dataclass(frozen=True)
class Scores:
    """Scores (n k), larger for the likelier class, or (n,) or (n 1) of class 1 against class 0; taken as logits."""

    @property
    def shows(self) -> Sight:
        return Sight.SCORES

    def __call__(self, answer: Any, rows: int, classes: int | None) -> Logits:
        scores = _table(answer, rows, classes, "scores")
        return torch.cat([torch.zeros_like(scores), scores], 1) if scores.shape[1] == 1 else scores


@final
@dataclass(frozen=True)
class LabelsOf:
    """Labels (n,), each one of the names, which may be texts or numbers; the logits are 1 for that class, else 0."""

    names: tuple[Any, ...]

    @property
    def shows(self) -> Sight:
        return Sight.LABELS

    def __call__(self, answer: Any, rows: int, classes: int | None) -> Logits:
        given = answer.tolist() if hasattr(answer, "tolist") else list(answer)
        labels = [v[0] if isinstance(v, (list, tuple)) and len(v) == 1 else v for v in given]
        if len(labels) != rows:
            raise ModelError(
                f"The function returned {len(labels)} labels for {rows} rows; it must return one for each."
            )
        place = {name: i for i, name in enumerate(self.names)}
        odd = next((v for v in labels if isinstance(v, (list, dict)) or v not in place), None)
        if odd is not None:
            raise ModelError(
                f"The function answered {odd!r}, which is none of the classes {', '.join(map(repr, self.names[:10]))}: "
                "give LabelsOf all labels that it may return, in the order of the classes."
            )
        logits = torch.zeros(rows, len(self.names))
        logits[torch.arange(rows), torch.tensor([place[v] for v in labels], dtype=torch.long)] = 1.0
        return logits


class BlackBox(nn.Module):
    """A function as a model that shows scores or labels only, and counts what it is asked.

    `call` takes a batch (n *d) as a numpy array of the dtype of the inputs, or as a tensor where `tensors` says so, and
    returns what `output` says: `Probabilities()`, `Scores()` or `LabelsOf(("cat", "dog"))`. `classes` is how many there
    are, where it should be checked. It is asked at most `chunk` rows at once; `queries` counts the rows.
    Raises `InputError` for settings that contradict one another; forward raises `ModelError` for other answers.
    """

    def __init__(
        self,
        call: Callable[[Any], Any],
        classes: int | None = None,
        *,
        output: Output | None = None,
        chunk: int = 4096,
        tensors: bool = False,
    ) -> None:
        super().__init__()
        self.output: Output = output or Probabilities()
        if isinstance(self.output, LabelsOf):
            if len(set(self.output.names)) < 2 or classes not in (None, len(self.output.names)):
                raise InputError(
                    f"LabelsOf names {len(set(self.output.names))} classes and classes is {classes}: name each class "
                    "once, two of them at least."
                )
            classes = len(self.output.names)
        if chunk < 1 or (classes is not None and classes < 2):
            raise InputError(f"chunk is {chunk} and classes is {classes}: give at least 1 row and 2 classes.")
        self.call, self.classes, self.chunk, self.tensors, self.queries = call, classes, chunk, tensors, 0
        self.notes: tuple[str, ...] = ()

    @property
    def shows(self) -> Sight:
        """Scores or labels, by what the function returns."""
        return self.output.shows

    def forward(self, x: Tensor) -> Logits:
        """Logits (n k) of x (n *d); in float64 where the function answers so."""
        if not len(x):
            return x.new_zeros(0, self.classes or 2)
        with torch.no_grad():
            return torch.cat([self._ask(part) for part in x.detach().split(self.chunk)]).to(x.device)

    def _ask(self, x: Tensor) -> Logits:
        self.queries += len(x)
        answer = self.call(x.clone() if self.tensors else x.cpu().numpy().copy())
        return self.output(answer, len(x), self.classes)


def _table(answer: Any, rows: int, classes: int | None, what: str) -> Tensor:
    """The answer as a tensor of floats (rows, k), or (rows, 1) of one column; raises ModelError for anything else."""
    try:
        held = answer.detach().cpu() if isinstance(answer, Tensor) else torch.from_numpy(np.array(answer))
    except (TypeError, ValueError) as error:
        raise ModelError(f"The function returned a {type(answer).__name__}, not a table of {what}: {error}.") from error
    if held.dtype not in (torch.float32, torch.float64):
        held = held.double() if not held.is_floating_point() else held.float()
    held = held[:, None] if held.ndim == 1 else held
    wide = (classes,) if classes not in (None, 2) else (1, 2) if classes == 2 else None
    if held.ndim != 2 or len(held) != rows or not held.shape[1] or (wide and held.shape[1] not in wide):
        of = f" of {classes} classes" if classes else ""
        raise ModelError(
            f"The function returned an array of shape {tuple(held.shape)} for {rows} rows; it must return {what}{of}, "
            "one row for each input."
        )
    return held
