"""How long, how fast and with what regularisation: everything about a training run that is not the recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from adamant.adversary import Attack, Composite
from adamant.attacks.apgd import APGD
from adamant.attacks.gradient import PGD
from adamant.errors import InputError
from adamant.losses import Margin
from adamant.runtime.augment import Augment, Mixing
from adamant.runtime.knobs import Knob, OneCycle
from adamant.runtime.optimizers import Adam, Optimizer
from adamant.threats import Projectable


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """The outer loop: epochs, batches, optimiser, regularisation, and how the best checkpoint is chosen."""

    epochs: int = 10
    batch_size: int = 128
    optimizer: Optimizer = Adam()
    shape: Knob = OneCycle()  # of the learning rate over the run
    l1: float = 0.0  # times the sum of absolute weights
    l2: float = 0.0  # weight decay
    dropout: float = 0.0  # before the last linear layer, in the training pass only
    clip: float | None = None  # the longest gradient of all weights together that a step follows
    augment: tuple[Augment | Mixing, ...] = ()
    extra: float = 0.0  # the share of each batch that comes from the job's extra rows
    freeze: tuple[str, ...] = ()  # modules and parameters that stay as they are, as patterns: features.*
    probe: float = 0.0  # the share of the run that trains the last linear layer alone (Kumar et al., arXiv:2202.10054)
    # The best checkpoint is the one that stands best on validation rows against this attack; None: a margin-driven one
    # that fits the threat model, as cross-entropy alone mis-ranks checkpoints.
    select: Attack | Composite | None = None
    select_rows: int = 512
    patience: int | None = None  # stop after so many epochs without a better checkpoint
    save_every: float = 30.0  # seconds between checkpoints, beside the one after every epoch
    channels_last: bool = False  # the layout of pictures; changes no result but by rounding
    autocast: bool = False  # bfloat16 in the passes; perturbations, losses and averages stay float32
    compile: bool = False  # one graph for the attack and one for the update

    def check(self, rows: int) -> None:
        """Raise InputError for a plan that cannot be carried out on so many rows."""
        if self.epochs < 1 or self.batch_size < 1:
            raise InputError(
                f"Training needs at least one epoch and one row per batch, got {self.epochs} and {self.batch_size}."
            )
        if rows < self.own_rows:
            raise InputError(
                f"The training set has {rows} rows, fewer than one batch of {self.own_rows}: lower --batch-size."
            )
        if self.select_rows < 1:
            raise InputError(f"The best epoch is chosen on at least one validation row, got {self.select_rows}.")
        for name in ("dropout", "extra", "probe"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name.capitalize()} is a share from 0 to below 1, got {getattr(self, name)}.")
        if self.clip is not None and not self.clip > 0:
            raise InputError(f"Clip is the longest gradient that a step follows, above 0, got {self.clip}.")

    def selector(self, threat: Projectable) -> Attack | Composite:
        """The attack that the best checkpoint is chosen by."""
        if self.select is not None:
            return self.select
        auto = isinstance(threat, APGD.threats)
        return APGD(steps=10, loss=Margin()) if auto else PGD(steps=10, rate=0.25, loss=Margin())

    @property
    def own_rows(self) -> int:
        """Rows of the training set itself in a batch; at least one."""
        return max(1, self.batch_size - round(self.extra * self.batch_size))
