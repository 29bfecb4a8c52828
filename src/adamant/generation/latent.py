"""Unrestricted adversarial examples: whatever a generator draws near a latent, as long as a judge sees its class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adamant._types import Inputs, Labels, Mask, Scores
from adamant.batch import PerRow, per_row, take
from adamant.errors import InputError
from adamant.files import sha256
from adamant.generation.files import load
from adamant.generation.nets import Discriminator, Generator
from adamant.models.generators import in_lanes
from adamant.models.load import kept_model
from adamant.random import Rng
from adamant.threats.parametric import Pictures

_SHARES = (1.0, 0.75, 0.5, 0.25)  # of the way to the latent that is asked for, the first that the judge lets pass
_AT_ONCE = 256


@final
@dataclass(frozen=True, kw_only=True)
class Latent(Pictures):
    """{G(v, y): |v_i - code_i| <= reach for every entry, and the judge takes G(v, y) for y}, around G(code, y).

    Song et al., 2018, arXiv:1805.07894, whose soft bound on the latent is a hard one here, and whose people who name
    the class are a model: give a robust one that has nothing to do with the model under attack. Where the judge refuses
    a latent, the nearest quarter of the way back to the code that it lets pass stands for it, at last the code itself,
    so every member is one that the judge agrees with. G is the generator of a game with labels, named by its file. Make
    it, with its inputs, by `unrestricted`.
    """

    generator: str
    judge: str
    codes: PerRow  # (n latent)
    labels: PerRow  # (n,)
    reach: float = 0.5

    @property
    def allows(self) -> str:
        """What the attacker may do, in words."""
        return f"draw another picture of the same class, whose latent differs by at most {self.reach:g} in each entry"

    def check(self, x: Inputs) -> None:
        super().check(x)
        if len(self.codes.values) != len(x):
            raise InputError(f"There are {len(self.codes.values)} latents for {len(x)} inputs: attack them together.")
        drawn, agreed = self.start(str(x.device))
        if drawn.shape != x.shape or not torch.allclose(drawn.to(x), x, atol=1e-4):
            raise InputError("The inputs are not what the generator draws at the codes: take those of unrestricted.")
        if not bool(agreed.all()):
            raise InputError(
                f"The judge does not see the class of {int((~agreed).sum())} of the inputs, so that no change of them "
                "could count: take those of unrestricted."
            )

    def start(self, device: str) -> tuple[Inputs, Mask]:
        """What is drawn at the codes, and where the judge sees its class."""
        with torch.no_grad():
            drawn = self._draw(torch.zeros(self.codes.values.shape, device=device))
            return drawn, self._agrees(drawn)

    def parameters(self, x: Inputs) -> tuple[int, ...]:
        return tuple(self.codes.values.shape[1:])

    def apply(self, x: Inputs, theta: Tensor) -> Inputs:
        with torch.no_grad():
            share = self._share(theta.detach())
        return self._draw(theta * per_row(share, theta))

    def likeness(self, theta: Tensor) -> Scores:
        """The log probability of the label by the classifier that learned beside the generator, with a gradient; (n,).

        Zero where the game has none (`GAN(labels=Auxiliary())` has).
        """
        look = _networks(self.generator, theta)[1]
        if look is None:
            return 0 * theta.sum(1)
        named = look.both(self._draw(theta))[1]
        assert named is not None
        return -F.cross_entropy(named, self._y(theta), reduction="none")

    def _share(self, theta: Tensor) -> Tensor:
        share, rows = theta.new_zeros(len(theta)), torch.arange(len(theta), device=theta.device)
        for part in _SHARES:
            some = take(self, rows)
            passed = some._agrees(some._draw(part * theta[rows]))
            share[rows[passed]], rows = part, rows[~passed]
            if not len(rows):
                break
        return share

    def _y(self, like: Tensor) -> Labels:
        return self.labels.values.to(like.device, torch.int64)

    def _draw(self, theta: Tensor) -> Inputs:
        made = in_lanes(
            _networks(self.generator, theta)[0], self.codes.values.to(theta) + self.reach * theta, self._y(theta)
        )
        return made.clamp(*self.box)

    def _agrees(self, x: Inputs) -> Mask:
        judge = kept_model(self.judge, str(x.device))
        return in_lanes(judge, x.to(next(judge.parameters()))).argmax(1) == self._y(x)


def unrestricted(
    generator: str,
    judge: str,
    rows: int,
    *,
    reach: float = 0.5,
    seed: int = 0,
    device: str = "cpu",
    box: tuple[float, float] = (0.0, 1.0),
) -> tuple[Inputs, Labels, Latent]:
    """So many drawn inputs of all classes in turn that the judge sees as they are meant, and what they may become.

    `generator` is the file of a game with labels, `judge` that of a model that explains itself. Raises InputError for
    other files, for shapes that do not fit, and where the judge refuses three in four of what is drawn.
    """
    for name, path in (("generator", generator), ("judge", judge)):
        try:
            sha256(path)
        except OSError:
            raise InputError(f"There is no {name} at {path}: give the file of one.") from None
    net = _networks(generator, torch.zeros(0, device=device))[0]
    codes, labels, drawn = list[Tensor](), list[Tensor](), list[Tensor]()
    for at in range(0, 4 * rows, _AT_ONCE):
        numbers = torch.arange(at, min(at + _AT_ONCE, 4 * rows))
        some = Latent(
            generator=generator, judge=judge, reach=reach, box=box,
            codes=PerRow(Rng.of(seed, numbers).fold("code").normal(net.latent)), labels=PerRow(numbers % net.classes),
        )  # fmt: skip
        x, good = some.start(device)
        codes, labels, drawn = ([*held, part[good.cpu()]] for held, part in (
            (codes, some.codes.values), (labels, some.labels.values), (drawn, x.cpu())
        ))  # fmt: skip
        if sum(map(len, drawn)) >= rows:
            break
    x, y = torch.cat(drawn)[:rows], torch.cat(labels)[:rows]
    if len(x) < rows:
        raise InputError(
            f"The judge {judge} sees the class that was asked for in {len(x)} of {4 * rows} inputs drawn by "
            f"{generator}: train the generator longer, or take a judge of the same data."
        )
    own = Latent(
        generator=generator, judge=judge, codes=PerRow(torch.cat(codes)[:rows]), labels=PerRow(y), reach=reach, box=box
    )  # fmt: skip
    return x, y.long(), own


@lru_cache(maxsize=4)
def _read(path: str, _sha256: str, device: str, dtype: torch.dtype) -> tuple[Generator, Discriminator | None]:
    saved = load(path)
    make, look = (dict(saved.networks.named_children()).get(name) for name in ("generator", "discriminator"))
    if not isinstance(make, Generator) or not make.classes:
        raise InputError(f"{path} holds no generator that takes labels: play GAN(labels=Auxiliary()).")
    names = isinstance(look, Discriminator) and look.label is not None and not look.projects
    networks: nn.Module = saved.networks.to(device, dtype)
    networks.eval()
    return make, cast(Discriminator, look) if names else None


def _networks(path: str, like: Tensor) -> tuple[Generator, Discriminator | None]:
    return _read(path, sha256(path), str(like.device), like.dtype)
