"""Views for the price of one step: noise beyond the ball, replays, priors from the last visit, guided steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import nn

from adamant._types import Inputs, Labels
from adamant.attacks.gradient import gather
from adamant.calling import Caller, unwrapped
from adamant.errors import InputError
from adamant.random import Rng
from adamant.threats import Projectable
from adamant.training.outer import CE, Times
from adamant.training.parts import Batch, Inner, Memory, finer, scaled
from adamant.training.points import noise, normed, remember, slope, unboxed
from adamant.training.terms import Apart
from adamant.training.views import Outer, Views

_GUIDE = Times(10.0, Apart("clean", "adv"))  # that of GAT on CIFAR-10


@final
@dataclass(frozen=True, kw_only=True)
class Overshoot:
    """The view `adv`: noise of several budgets, then a step of one, clipped to the box and not to the ball.

    N-FGSM (de Jorge et al., 2022, arXiv:2202.01181): clipping to the ball takes effect from the step, and noise that
    stays within it is too small to keep single steps honest. Made stronger, the same path has more steps.
    """

    noise: float = 2.0  # budgets
    rate: float = 1.0  # of the budget, per step
    steps: int = 1

    def __post_init__(self) -> None:
        if not (self.noise > 0 and self.rate > 0 and self.steps >= 1):
            raise InputError(f"Noise, rate and steps must be above 0, got {self.noise}, {self.rate}, {self.steps}.")

    @property
    def cost(self) -> int:
        return 2 * self.steps

    def stronger(self) -> Inner:
        return finer(self)

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        z = noise(scaled(normed(threat, self), self.noise), batch.x, batch.rng.fold("start"))
        for _ in range(self.steps):
            _, g = slope(model, z, batch.y, batch)
            z = threat.clip(threat.move(z, g, self.rate))
        return {"adv": z}


@final
@dataclass(frozen=True, kw_only=True)
class Carried:
    """The view `adv`: a perturbation for each seat of the batch, which every training pass carries one step further.

    Free adversarial training (Shafahi et al., 2019, arXiv:1904.12843): the backward that trains the weights also gives
    the gradient by the input, so the attack costs nothing. Whoever takes the seat next begins with what is there.
    Made stronger, its steps are half as long.
    """

    rate: float = 1.0  # of the budget, per step

    @property
    def cost(self) -> int:
        return 0

    @property
    def learns(self) -> str:
        return "adv"

    def stronger(self) -> Inner:
        return replace(self, rate=self.rate / 2)

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        normed(threat, self)
        if "carried" not in memory:
            memory["carried"] = batch.x.new_zeros(len(batch.x) * batch.shard.world, *batch.x.shape[1:])
        return {"adv": threat.project(batch.x + memory["carried"][batch.seats], batch.x)}

    def learn(self, batch: Batch, gradient: Inputs, threat: Projectable, memory: Memory) -> None:
        ball, seats = unboxed(threat), batch.seats
        change = memory["carried"][seats]
        moved = ball.project(ball.move(change, gradient, self.rate), torch.zeros_like(change))
        remember(memory, "carried", seats, moved)


@final
@dataclass(frozen=True, kw_only=True)
class Remembered:
    """The views `start` and `adv`: where a row's momentum led at its last visit, and one step from there.

    FGSM-MEP, the best prior of Jia et al., 2022, arXiv:2207.08859. It remembers two tensors of the size of the training
    set; every `reset` epochs it begins anew in a random corner. Their shapes are those of the inputs as they are drawn:
    crops and flips move the picture under its perturbation. Made stronger, the same path has more steps.
    """

    rate: float = 1.0  # of the budget, per step
    decay: float = 0.3  # of the momentum, per visit
    reset: int = 40  # epochs
    steps: int = 1

    def __post_init__(self) -> None:
        if not (self.rate > 0 and self.decay >= 0 and self.reset >= 1 and self.steps >= 1):
            raise InputError(
                f"Rate, reset and steps must be above 0 and decay not below, got {self.rate}, {self.reset}, "
                f"{self.steps}, {self.decay}."
            )

    @property
    def cost(self) -> int:
        return 2 * self.steps

    def stronger(self) -> Inner:
        return finer(self)

    def refresh(self, model: nn.Module, x: Inputs, y: Labels, threat: Projectable, rng: Rng, memory: Memory) -> None:
        epoch = int(memory["prior.epoch"]) + 1 if "prior.epoch" in memory else 0
        memory["prior.epoch"] = torch.tensor(epoch)
        if epoch % self.reset == 0:
            ball, none = unboxed(normed(threat, self)), torch.zeros_like(x)
            anyhow = rng.fold("corner").normal(*x.shape[1:], dtype=x.dtype)
            memory["prior.start"] = ball.project(ball.move(none, anyhow, 1.0), none)
            memory["prior.momentum"] = none

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        x, at = batch.x, batch.places
        z = start = threat.project(x + memory["prior.start"][at], x)
        for i in range(self.steps):
            _, g = slope(model, z, batch.y, batch)
            if i == 0:
                momentum = gather(memory["prior.momentum"][at], g, self.decay)
                ahead = threat.project(threat.move(start, momentum, self.rate * self.steps), x)
                remember(memory, "prior.momentum", at, momentum)
                remember(memory, "prior.start", at, ahead - x)
            z = threat.project(threat.move(z, g, self.rate), x)
        return {"start": start, "adv": z}


@final
@dataclass(frozen=True, kw_only=True)
class Guided:
    """The view `adv`: one step from a random corner of a smaller ball, of the log loss and half the time a guide.

    The guide leads away from the answer to the clean input: GAT (Sriramanan et al., 2020, arXiv:2011.14969) and NuAT
    (Sriramanan et al., 2021) alternate with it from batch to batch; here a coin decides for each row.
    Made stronger, the same path has more steps.
    """

    guide: Outer = _GUIDE
    start: float = 0.5  # of the budget
    rate: float = 1.0  # of the budget, per step
    steps: int = 1

    @property
    def cost(self) -> int:
        return 2 * self.steps + 1

    def stronger(self) -> Inner:
        return finer(self)

    def __call__(self, model: nn.Module, batch: Batch, threat: Projectable, memory: Memory) -> dict[str, Inputs]:
        x, call = batch.x, Caller(unwrapped(model), batch.settings)
        with torch.no_grad():
            clean = call(x)
        coin = batch.rng.fold("guided").integers(2).to(x.dtype)
        sign = batch.rng.fold("start").normal(*x.shape[1:], dtype=x.dtype)
        z = threat.project(threat.move(x, sign, self.start), x)
        for _ in range(self.steps):
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                views = Views({"clean": x, "adv": z}, batch.y, call, threat=threat, rng=batch.rng, done=batch.done)
                views.know("clean", clean)
                score = CE("adv")(views) + coin * self.guide(views)
                (g,) = torch.autograd.grad(score.sum(), z)
            z = threat.project(threat.move(z, g, self.rate), x)
        return {"adv": z.detach()}


CATALOGUE: tuple[type, ...] = (Overshoot, Carried, Remembered, Guided)
