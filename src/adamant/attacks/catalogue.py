"""Every attack with its source, its cost and when to use it: what `adamant attacks` lists."""

from __future__ import annotations

from dataclasses import dataclass

from adamant.attacks.composites import EachTarget, Restarts, Union
from adamant.attacks.ddn import DDN
from adamant.attacks.deepfool import DeepFool
from adamant.attacks.gradient import BIM, FGM, FGSM, MIFGSM, PGD, RFGSM
from adamant.attacks.search import Draws, RandomSearch


@dataclass(frozen=True)
class Entry:
    """A line of the catalogue."""

    member: type
    source: str
    cost: str  # passes per row that is not broken
    needs: str
    when: str

    @property
    def name(self) -> str:
        """As it is typed."""
        return self.member.__name__


CATALOGUE: tuple[Entry, ...] = (
    Entry(
        FGSM,
        "Goodfellow et al., 2015, arXiv:1412.6572",
        "2 forwards + 1 backward",
        "gradient",
        "a first smoke test; and inside fast training",
    ),
    Entry(
        RFGSM,
        "Tramèr et al., 2018, arXiv:1705.07204",
        "2 forwards + 1 backward",
        "gradient",
        "when the gradient at the input itself is masked",
    ),
    Entry(
        FGM,
        "Goodfellow et al., 2015, arXiv:1412.6572",
        "2 forwards + 1 backward",
        "gradient",
        "to see the plain gradient step; weaker than FGSM on Linf",
    ),
    Entry(
        BIM,
        "Kurakin et al., 2017, arXiv:1607.02533",
        "steps + 1 forwards, steps backwards",
        "gradient",
        "a deterministic PGD",
    ),
    Entry(
        PGD,
        "Madry et al., 2018, arXiv:1706.06083",
        "steps + 1 forwards, steps backwards",
        "gradient",
        "the standard first-order attack, for every norm",
    ),
    Entry(
        MIFGSM,
        "Dong et al., 2018, arXiv:1710.06081",
        "steps + 1 forwards, steps backwards",
        "gradient",
        "when the examples are to transfer to another model",
    ),
    Entry(
        Draws,
        "Engstrom et al., 2019, arXiv:1712.02779",
        "steps + 1 forwards",
        "labels",
        "the worst of k: for turns and shifts, and to see what noise alone does",
    ),
    Entry(
        RandomSearch,
        "Rastrigin, 1963",
        "steps + 1 forwards",
        "scores",
        "no gradient at hand, or to see whether gradients are masked",
    ),
    Entry(
        DeepFool,
        "Moosavi-Dezfooli et al., 2016, arXiv:1511.04599",
        "up to steps + 1 forwards, classes x steps backwards; most rows need 3 steps",
        "gradient",
        "how far the boundary is, in a few passes; minimum norm, L2 and Linf",
    ),
    Entry(
        DDN,
        "Rony et al., 2019, arXiv:1811.09600",
        "steps + 1 forwards, steps backwards",
        "gradient",
        "the smallest L2 change for the money; minimum norm, L2",
    ),
    Entry(Restarts, "repetition", "n times its attack", "as its attack", "to average out the luck of a random start"),
    Entry(
        EachTarget,
        "Gowal et al., 2019, arXiv:1910.09338",
        "n times its attack + 1 forward",
        "as its attack",
        "when the way to one wrong class is blocked",
    ),
    Entry(Union, "worst case per row", "the sum of its attacks", "as its attacks", "one verdict from several attacks"),
)
