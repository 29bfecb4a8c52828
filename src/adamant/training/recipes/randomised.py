"""Training of models that are to be smoothed by noise; the certificate is another matter."""

from __future__ import annotations

from collections.abc import Callable

from adamant.adversary import Attack
from adamant.attacks.gradient import PGD
from adamant.errors import InputError
from adamant.runtime.average import Average
from adamant.runtime.knobs import Constant, Knob
from adamant.training.outer import CE, Sum, Times
from adamant.training.randomised import FromMean, MeanCE, MeanEntropy, Noisy, NoisyAscend, Radius, copies
from adamant.training.recipes.base import Recipe, not_negative
from adamant.training.views import Outer


def gaussian(*, sigma: float = 0.25, n: int = 1, average: Average | None = None) -> Recipe:
    """The loss on inputs with Gaussian noise, as the smoothed model will see them (Cohen et al., 2019)."""
    _check(sigma, n)
    return Recipe(
        name="gaussian",
        source="Cohen et al., 2019, arXiv:1902.02918",
        inner=Noisy(sigma, n),
        outer=_mean(n),
        average=average,
        joint=True,
    )


def smoothadv(
    *,
    sigma: float = 0.25,
    n: int = 4,
    attack: Attack = PGD(steps=4, rate=0.5),
    average: Average | None = None,
    eps: Knob = Constant(),
) -> Recipe:
    """Adversarial training of the smoothed model: attacks see the mean over n noisy copies (Salman et al., 2019)."""
    _check(sigma, n)
    return Recipe(
        name="smoothadv",
        source="Salman et al., 2019, arXiv:1906.04584",
        inner=NoisyAscend(attack, sigma, n),
        outer=_mean(n),
        average=average,
        eps=eps,
        joint=True,
    )


def consistency(
    *, sigma: float = 0.25, n: int = 2, lam: float = 10.0, eta: float = 0.5, average: Average | None = None
) -> Recipe:
    """Noisy loss + lam x how far the copies' answers differ + eta x entropy of their mean (Jeong & Shin, 2020)."""
    _check(sigma, n, least=2)
    not_negative("lam", lam)
    not_negative("eta", eta)
    names = copies(n)
    return Recipe(
        name="consistency",
        source="Jeong & Shin, 2020, arXiv:2006.04062",
        inner=Noisy(sigma, n),
        outer=Sum(_mean(n), Times(lam, FromMean(names)), Times(eta, MeanEntropy(names))),
        average=average,
        joint=True,
    )


def macer(
    *,
    sigma: float = 0.25,
    n: int = 16,
    lam: float = 12.0,
    gamma: float = 8.0,
    sharper: float = 16.0,
    average: Average | None = None,
) -> Recipe:
    """Loss of the mean answer over n noisy copies + lam x what its certified radius lacks (Zhai et al., 2020)."""
    _check(sigma, n)
    not_negative("lam", lam)
    names = copies(n)
    return Recipe(
        name="macer",
        source="Zhai et al., 2020, arXiv:2001.02378",
        inner=Noisy(sigma, n),
        outer=Sum(MeanCE(names), Times(lam, Radius(names, sigma, gamma, sharper))),
        average=average,
        joint=True,
    )


def _mean(n: int) -> Outer:
    if n == 1:
        return CE("noisy0")
    return Sum(*(Times(1 / n, CE(name)) for name in copies(n)))


def _check(sigma: float, n: int, least: int = 1) -> None:
    if not sigma > 0:
        raise InputError(f"sigma is the deviation of the noise, in units of the input and above 0, got {sigma}.")
    if n < least:
        raise InputError(f"n is how many noisy copies there are of each row, {least} or more, got {n}.")


CATALOGUE: tuple[Callable[..., Recipe], ...] = (gaussian, smoothadv, consistency, macer)
