"""Adversarial training for the price of one step, watched for catastrophic overfitting."""

from __future__ import annotations

from collections.abc import Callable

from adamant.attacks.gradient import FGSM, PGD
from adamant.errors import InputError
from adamant.runtime.average import Average
from adamant.runtime.knobs import Constant, Knob, Ramp
from adamant.training.guards import Collapse, Guard
from adamant.training.inner import Ascend
from adamant.training.onestep import Carried, Guided, Overshoot, Remembered
from adamant.training.outer import CE, Squared, Sum, Times
from adamant.training.recipes.base import Recipe, not_negative
from adamant.training.terms import Apart, Misaligned, Nuclear

_RISING = Ramp(until=1.0)  # over the whole run


def fast(
    *,
    rate: float = 1.25,
    average: Average | None = None,
    eps: Knob = Constant(),
    guard: Guard | None = Collapse(),
) -> Recipe:
    """One step from a random start (FGSM-RS, Wong et al., 2020), watched for catastrophic overfitting.

    The start is uniform on ball and box together; theirs is uniform on the ball.
    """
    return Recipe(
        name="fast",
        source="Wong et al., 2020, arXiv:2001.03994",
        inner=Ascend(PGD(steps=1, rate=rate)),
        outer=CE("adv"),
        average=average,
        eps=eps,
        guard=guard,
    )


def nfgsm(
    *,
    noise: float = 2.0,
    rate: float = 1.0,
    average: Average | None = None,
    eps: Knob = Constant(),
    guard: Guard | None = Collapse(),
) -> Recipe:
    """One step from noise of two budgets, not clipped to the ball (N-FGSM, de Jorge et al., 2022)."""
    return Recipe(
        name="nfgsm",
        source="de Jorge et al., 2022, arXiv:2202.01181",
        inner=Overshoot(noise=noise, rate=rate),
        outer=CE("adv"),
        average=average,
        eps=eps,
        guard=guard,
    )


def free(
    *,
    replay: int = 8,
    rate: float = 1.0,
    average: Average | None = None,
    eps: Knob = Constant(),
    guard: Guard | None = Collapse(),
) -> Recipe:
    """Each batch several times over, and each backward also moves the attack (Shafahi et al., 2019).

    An epoch is `replay` passes over the data: ask for so many times fewer epochs.
    """
    if replay < 2:
        raise InputError(f"Free training needs at least two passes over each batch to attack it, got replay={replay}.")
    return Recipe(
        name="free",
        source="Shafahi et al., 2019, arXiv:1904.12843",
        inner=Carried(rate=rate),
        outer=CE("adv"),
        average=average,
        eps=eps,
        guard=guard,
        replay=replay,
        attack_in_training_mode=True,
    )


def gradalign(
    *,
    lam: float = 0.2,
    average: Average | None = None,
    eps: Knob = Constant(),
    guard: Guard | None = Collapse(),
) -> Recipe:
    """One step, and input gradients that agree around the input (GradAlign, Andriushchenko & Flammarion, 2020).

    lam is theirs for Linf(8/255) on CIFAR-10; it rises with the budget (2 for 16/255).
    """
    not_negative("lam", lam)
    return Recipe(
        name="gradalign",
        source="Andriushchenko & Flammarion, 2020, arXiv:2007.02617",
        inner=Ascend(FGSM()),
        outer=Sum(CE("adv"), Times(lam, Misaligned("clean"))),
        average=average,
        eps=eps,
        guard=guard,
    )


def prior(
    *,
    lam: float = 1.0,
    decay: float = 0.3,
    reset: int = 40,
    rate: float = 1.0,
    average: Average | None = None,
    eps: Knob = Constant(),
    guard: Guard | None = Collapse(),
) -> Recipe:
    """One step from where the row was led at its last visits, whose answer must not move (FGSM-PGI, Jia et al., 2022).

    Their lam is 10 for the mean over ten classes of the squared differences, so 1 for the sum.
    """
    not_negative("lam", lam)
    return Recipe(
        name="prior",
        source="Jia et al., 2022, arXiv:2207.08859",
        inner=Remembered(rate=rate, decay=decay, reset=reset),
        outer=Sum(CE("adv"), Times(lam, Squared("adv", "start"))),
        average=average,
        eps=eps,
        guard=guard,
    )


def gat(
    *,
    lam: float = 10.0,
    by: Knob = Constant(),
    start: float = 0.5,
    average: Average | None = None,
    eps: Knob = Constant(),
    guard: Guard | None = Collapse(),
) -> Recipe:
    """Clean loss, and answers that stay together under one guided step (GAT, Sriramanan et al., 2020).

    On MNIST they take lam=15, tripled at each quarter of the run, and start=1.
    """
    not_negative("lam", lam)
    guide = Times(lam, Apart("clean", "adv"), by)
    return Recipe(
        name="gat",
        source="Sriramanan et al., 2020, arXiv:2011.14969",
        inner=Guided(guide=guide, start=start),
        outer=Sum(CE("clean"), guide),
        average=average,
        eps=eps,
        guard=guard,
    )


def nuat(
    *,
    lam: float = 4.0,
    by: Knob = _RISING,
    start: float = 0.5,
    average: Average | None = None,
    eps: Knob = Constant(),
    guard: Guard | None = Collapse(),
) -> Recipe:
    """Clean loss, and a small nuclear norm of how the answers of a batch move (NuAT, Sriramanan et al., 2021)."""
    not_negative("lam", lam)
    guide = Times(lam, Nuclear("clean", "adv"), by)
    return Recipe(
        name="nuat",
        source='Sriramanan et al., 2021, "Towards Efficient and Effective Adversarial Training", NeurIPS',
        inner=Guided(guide=guide, start=start),
        outer=Sum(CE("clean"), guide),
        average=average,
        eps=eps,
        guard=guard,
    )


CATALOGUE: tuple[Callable[..., Recipe], ...] = (fast, nfgsm, free, gradalign, prior, gat, nuat)
