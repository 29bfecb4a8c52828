"""Accuracy under common corruptions: each kind at each severity, and the means that papers quote."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from adamant.calling import Caller, Settings, device_of, untouched, unwrapped
from adamant.corruptions import ALL15, Kind
from adamant.corruptions.base import SMALL_BELOW
from adamant.errors import InputError
from adamant.evaluation.audit import Data
from adamant.evaluation.counting import share
from adamant.random import Rng

# Mean error of AlexNet over the five severities of ImageNet-C, as normalisers in wide use (Hendrycks & Dietterich,
# 2019, arXiv:1903.12261; the digits as in the published code of AugMix, arXiv:1912.02781).
ALEXNET = dict(
    zip(
        (kind.__name__ for kind in ALL15),
        (
            0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, 0.866816, 0.826572, 0.819324,
            0.564592, 0.853204, 0.646056, 0.717840, 0.606500,
        ),
        strict=True,
    )
)  # fmt: skip
SEVERITIES = (1, 2, 3, 4, 5)

Errors = Mapping[str, float]  # the mean error of each kind


@final
@dataclass(frozen=True)
class Corrupted:
    """What corruptions leave: the clean share, and a share for each kind (first key) and severity (second key)."""

    clean: dict[str, Any]
    shares: dict[str, dict[int, dict[str, Any]]]
    size: tuple[int, int]  # height and width of the pictures
    classes: int
    seed: int

    @property
    def per_kind(self) -> dict[str, float]:
        """The mean accuracy over the severities of each kind."""
        return {k: sum(s["accuracy"] for s in by.values()) / len(by) for k, by in self.shares.items()}

    @property
    def mean(self) -> float:
        """The mean accuracy over kinds and severities."""
        return sum(self.per_kind.values()) / len(self.shares)

    @property
    def errors(self) -> dict[str, float]:
        """The mean error of each kind."""
        return {kind: 1 - accuracy for kind, accuracy in self.per_kind.items()}

    def mce(self, baseline: Corrupted | Errors | None = None) -> float | None:
        """Mean corruption error: the error of each kind over that of the baseline, averaged; 1 is the baseline's.

        Without a baseline, AlexNet's published errors, for 1000 classes, 224 pixels, all severities and kinds of the
        fifteen; else None. Raises InputError for a baseline that lacks a kind or makes no error on one.
        """
        if baseline is None:
            full = all(set(by) == set(SEVERITIES) for by in self.shares.values())
            if self.size != (224, 224) or self.classes != 1000 or not full or not set(self.shares) <= set(ALEXNET):
                return None
            baseline = ALEXNET
        base = self._compared(baseline).errors if isinstance(baseline, Corrupted) else baseline
        return self._ratio(self.errors, base, "makes no error")

    def relative_mce(self, baseline: Corrupted) -> float:
        """Relative mCE: what each kind adds to the clean error over what it adds to the baseline's, averaged."""
        own, base = 1 - self.clean["accuracy"], 1 - self._compared(baseline).clean["accuracy"]
        added = {kind: error - own for kind, error in self.errors.items()}
        theirs = {kind: error - base for kind, error in baseline.errors.items()}
        return self._ratio(added, theirs, "loses nothing")

    def _compared(self, baseline: Corrupted) -> Corrupted:
        if odd := [k for k in self.shares if set(baseline.shares.get(k, ())) != set(self.shares[k])]:
            raise InputError(f"The baseline has not the same severities of {', '.join(odd)}: evaluate it on these too.")
        return baseline

    def _ratio(self, own: Errors, base: Errors, nothing: str) -> float:
        if missing := [k for k in self.shares if k not in base]:
            raise InputError(f"The baseline has no error for {', '.join(missing)}: give one for each kind.")
        if flat := [k for k in self.shares if not base[k] > 0 or not math.isfinite(base[k])]:
            raise InputError(f"The baseline {nothing} under {', '.join(flat)}: nothing can be divided by it.")
        return sum(own[k] / base[k] for k in self.shares) / len(self.shares)

    def summary(self, baseline: Corrupted | Errors | None = None) -> dict[str, Any]:
        """All figures, ready for JSON."""
        own = 1 - self.clean["accuracy"]
        return {
            "clean": self.clean,
            "corruptions": {k: {str(s): figure for s, figure in by.items()} for k, by in self.shares.items()},
            "per_kind": self.per_kind,
            "mean_accuracy": self.mean,
            "mean_error": 1 - self.mean,
            "mean_relative_error": 1 - self.mean - own,
            "mce": self.mce(baseline),
            "relative_mce": self.relative_mce(baseline) if isinstance(baseline, Corrupted) else None,
            "figures": "32 px" if min(self.size) < SMALL_BELOW else "224 px",
            "seed": self.seed,
        }


def corrupted(
    model: nn.Module,
    data: Data,
    *,
    kinds: Sequence[Kind] = ALL15,
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    settings: Settings | None = None,
    watch: Callable[[int, int, str], None] | None = None,
) -> Corrupted:
    """The accuracy on the clean pictures and under each kind at each severity, one batch at a time.

    The pictures (n, c, h, w) lie in [0, 1]. A row's luck depends on the seed, its number and the kind, and is the same
    at every severity. A row with NaN among its logits counts as wrong. Raises InputError for what cannot be corrupted.
    """
    if not len(data.y) or not kinds or not severities:
        raise InputError("Nothing to evaluate: give rows, kinds of corruption and severities.")
    settings = settings or Settings()
    total, done = len(kinds) * len(severities) + 1, 0
    clean = share(_right(model, data, settings, lambda x, rng: x, seed), len(data.y))
    shares: dict[str, dict[int, dict[str, Any]]] = {}
    for kind in dict.fromkeys(kinds):
        shares[kind.__name__] = {}
        for severity in dict.fromkeys(severities):
            done += 1
            if watch:
                watch(done, total, f"{kind.__name__} {severity}")
            right = _right(model, data, settings, kind(severity=severity), seed)
            shares[kind.__name__][severity] = share(right, len(data.y))
    if watch:
        watch(total, total, "")
    height, width = data.x.shape[2:]
    return Corrupted(clean, shares, (height, width), len(data.classes), seed)


def _right(model: nn.Module, data: Data, settings: Settings, change: Callable[[Tensor, Rng], Tensor], seed: int) -> int:
    raw, right = unwrapped(model), 0
    device = device_of(raw, data.x[:1])
    caller = Caller(raw, settings)
    with untouched(raw), torch.no_grad():
        for rows in torch.arange(len(data.y)).split(settings.batch_size or 128):
            x = change(data.x[rows].to(device), Rng.of(seed, data.rows[rows]).to(device))
            logits = caller(x)
            hit = (logits.argmax(1).cpu() == data.y[rows].cpu()) & ~logits.isnan().any(1).cpu()
            right += int(hit.sum())
    return right
