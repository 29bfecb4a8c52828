"""The conformance list: one line for each attack of the house."""

from adamant import (
    BIM,
    DDN,
    EOT,
    FGM,
    FGSM,
    L0,
    L1,
    L2,
    MIFGSM,
    NES,
    PGD,
    RFGSM,
    SPSA,
    DeepFool,
    Draws,
    EachTarget,
    Linf,
    Margin,
    RandomSearch,
    Restarts,
    ScoresOnly,
    Union,
)
from adamant.testing import Member

BALLS = (Linf(0.15), L2(0.6), L1(1.5))
ALL = (*BALLS, L0(4))

MEMBERS = (
    Member(attack=FGSM(), threats=BALLS, reach=4.0, random=False),
    Member(attack=RFGSM(), threats=(Linf(0.15),), reach=8.0),
    Member(attack=RFGSM(), threats=(L2(0.6), L1(1.5)), reach=None),  # the random half can undo the other
    Member(attack=FGM(), threats=BALLS, reach=6.0, random=False),
    Member(attack=BIM(steps=20), threats=BALLS, reach=1.3, random=False),
    Member(attack=PGD(steps=40), threats=(Linf(0.15), L2(0.6)), reach=1.1),
    Member(attack=PGD(steps=40), threats=(L1(1.5),), reach=1.3),
    Member(attack=PGD(steps=20, rate=0.15), threats=(L0(4),), reach=2.0),
    Member(attack=MIFGSM(steps=20), threats=BALLS, reach=1.5, random=False),
    Member(attack=Draws(steps=4), threats=(Linf(0.5), L2(1.5)), access=ScoresOnly(), reach=None),
    Member(attack=RandomSearch(steps=100), threats=ALL, access=ScoresOnly(), reach=4.0),
    Member(attack=DeepFool(), threats=(Linf(0.15), L2(0.6)), reach=1.03, random=False),
    Member(attack=DDN(), threats=(L2(0.6),), reach=1.1, random=False),
    Member(attack=Restarts(PGD(steps=10, rate=0.25), 2), threats=BALLS, reach=1.5),
    Member(attack=EachTarget(PGD(steps=10, rate=0.25, loss=Margin()), 2), threats=BALLS, targeted=False, reach=1.5),
    Member(attack=Union(FGSM(), PGD(steps=10, rate=0.25)), threats=BALLS, reach=1.5, random=False),
    Member(attack=PGD(steps=8, rate=0.25), threats=(Linf(0.15),), access=NES(n=40), reach=5.0),
    Member(attack=PGD(steps=8, rate=0.25), threats=(Linf(0.15),), access=SPSA(n=40), reach=5.0),
    Member(attack=PGD(steps=8, rate=0.25), threats=(Linf(0.15),), access=EOT(n=2), reach=1.5),
)
