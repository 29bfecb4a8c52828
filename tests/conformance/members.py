"""The conformance list: one line for each attack of the house."""

from adamant import (
    ALMA,
    APGD,
    APGDL1,
    BIM,
    DDN,
    EAD,
    EOT,
    FAB,
    FGM,
    FGSM,
    FMN,
    JSMA,
    L0,
    L1,
    L2,
    MIFGSM,
    NES,
    NIFGSM,
    PDPGD,
    PGD,
    RFGSM,
    SPSA,
    VMIFGSM,
    ZOO,
    AdamPGD,
    Bandits,
    Best,
    BoundaryAttack,
    CarliniWagner,
    CarliniWagnerL0,
    CarliniWagnerLinf,
    CosinePGD,
    DeepFool,
    Diverse,
    Draws,
    EachTarget,
    FrankWolfe,
    GeoDA,
    HopSkipJump,
    Insist,
    LabelsOnly,
    Linf,
    Margin,
    Nearest,
    OnePixel,
    RandomSearch,
    RayS,
    Restarts,
    ScoresOnly,
    SigmaZero,
    SignOPT,
    SimBA,
    SparseFool,
    SparseRS,
    Square,
    SuperDeepFool,
    SurFree,
    Union,
    Within,
)  # fmt: skip
from adamant.testing import Member

BALLS = (Linf(0.15), L2(0.6), L1(1.5))
ALL = (*BALLS, L0(4))
SCORES, LABELS = ScoresOnly(), LabelsOnly()

MEMBERS = (
    # by gradient, within a budget
    Member(attack=FGSM(), threats=BALLS, reach=4.0, random=False),
    Member(attack=RFGSM(), threats=(Linf(0.15),), reach=8.0),
    Member(attack=RFGSM(), threats=(L2(0.6), L1(1.5)), reach=None),  # the random half can undo the other
    Member(attack=FGM(), threats=BALLS, reach=6.0, random=False),
    Member(attack=BIM(steps=20), threats=BALLS, reach=1.3, random=False),
    Member(attack=PGD(steps=25), threats=(Linf(0.15), L2(0.6)), reach=1.1),
    Member(attack=PGD(steps=20, rate=0.15), threats=(L1(1.5),), reach=1.3),
    Member(attack=PGD(steps=20, rate=0.15), threats=(L0(4),), reach=2.0),
    Member(attack=MIFGSM(steps=20), threats=BALLS, reach=1.5, random=False),
    Member(attack=NIFGSM(steps=12), threats=BALLS, reach=1.05, random=False),
    Member(attack=VMIFGSM(steps=8, rate=0.2, neighbours=3), threats=BALLS, reach=1.5),
    Member(attack=VMIFGSM(steps=8, rate=0.2, neighbours=3, nesterov=True), threats=(Linf(0.15),), reach=1.5),
    Member(attack=AdamPGD(steps=20), threats=(Linf(0.15),), reach=1.05),
    Member(attack=FrankWolfe(steps=12, rate=0.3), threats=BALLS, reach=1.1, random=False),
    Member(attack=CosinePGD(steps=12), threats=BALLS, reach=1.3),
    Member(attack=CosinePGD(steps=12, wide=2.0, start=Diverse()), threats=(Linf(0.15),), targeted=False, reach=1.3),
    Member(
        attack=Union(
            CosinePGD(steps=4), Nearest(EachTarget(CosinePGD(steps=4, start=Best()), 2, Best())),
            Insist(Square(steps=20, start=Best()), Square(steps=40, start=Best())),
        ),
        threats=(Linf(0.15),), targeted=False, reach=1.3,
    ),
    Member(attack=APGD(steps=20), threats=(Linf(0.15), L2(0.6)), reach=1.02),
    Member(attack=APGDL1(steps=20), threats=(L1(1.5),), reach=1.4),
    Member(attack=JSMA(gamma=1.0), threats=(L0(4),), reach=None, random=False),  # goes one way only
    Member(
        attack=JSMA(theta=-0.5, gamma=1.0, pairs=False, probabilities=True), threats=(L0(4),), reach=None, random=False
    ),
    # by gradient, the smallest change
    Member(attack=DeepFool(), threats=(Linf(0.15), L2(0.6)), reach=1.03, random=False),
    Member(attack=SuperDeepFool(steps=20), threats=(L2(0.6),), reach=1.03, random=False),
    Member(attack=SparseFool(steps=30), threats=(L1(1.5),), reach=1.1, random=False),
    Member(attack=SparseFool(steps=30), threats=(L0(4),), reach=2.0, random=False),
    Member(attack=DDN(steps=60), threats=(L2(0.6),), reach=1.1, random=False),
    Member(attack=FMN(steps=60), threats=BALLS, reach=1.1, random=False),
    Member(attack=FMN(steps=30), threats=(L0(4),), reach=2.0, random=False),
    Member(attack=FAB(steps=10), threats=BALLS, targeted=False, reach=1.05, random=False),
    Member(attack=ALMA(steps=60), threats=(L2(0.6),), reach=1.6, random=False),
    Member(attack=ALMA(steps=30), threats=(L1(1.5),), reach=None, random=False),
    Member(
        attack=PDPGD(steps=40, ratio=1.0, dual=0.3, average=0.7, rounds=2), threats=(L2(0.6), L1(1.5)), reach=2.0,
        random=False,
    ),
    Member(
        attack=PDPGD(steps=40, ratio=1.0, dual=0.3, average=0.7, rounds=2), threats=(Linf(0.15),), reach=4.0,
        random=False,
    ),
    # so few steps leave many entries
    Member(
        attack=PDPGD(steps=10, ratio=1.0, dual=0.3, average=0.7, rounds=2), threats=(L0(4),), reach=None, random=False
    ),
    Member(attack=CarliniWagner(rounds=6, each=10), threats=(L2(0.6),), reach=1.3, random=False),
    Member(
        attack=CarliniWagnerLinf(steps=80, each=10, rate=0.1, weight=0.3), threats=(Linf(0.15),), reach=2.5,
        random=False,
    ),
    Member(attack=CarliniWagnerL0(steps=60, each=8, drop=0.02), threats=(L0(4),), reach=2.0, random=False),
    Member(attack=EAD(rounds=5, each=20, rate=0.05, weight=0.1), threats=(L1(1.5),), reach=1.5, random=False),
    Member(attack=SigmaZero(steps=40), threats=(L0(4),), reach=2.0, random=False),
    # by scores
    Member(attack=Square(steps=60), threats=(Linf(0.15),), access=SCORES, reach=3.0),
    Member(attack=Square(steps=15), threats=(L2(0.6), L1(1.5)), access=SCORES, reach=None),  # heaps are coarse here
    Member(attack=SparseRS(steps=80), threats=(L0(4),), access=SCORES, reach=3.0),
    Member(attack=SimBA(steps=70), threats=(Linf(0.15), L2(0.6)), access=SCORES, reach=3.0),
    Member(attack=SimBA(steps=100), threats=(L1(1.5),), access=SCORES, reach=3.0),
    Member(attack=SimBA(steps=150, low=0.5, rate=0.5), threats=(L2(0.6),), access=SCORES, reach=4.0),
    Member(attack=Bandits(steps=70), threats=(Linf(0.15),), access=SCORES, reach=4.0),
    Member(attack=Bandits(steps=20), threats=(L2(0.6),), access=SCORES, reach=None),
    Member(attack=RandomSearch(steps=70), threats=ALL, access=SCORES, reach=4.0),
    Member(
        attack=ZOO(rounds=2, each=10, entries=8, rate=0.15), threats=(L2(0.6),), access=SCORES, targeted=False,
        reach=6.0,
    ),
    Member(attack=OnePixel(steps=4, population=20), threats=(L0(2),), access=SCORES, reach=None),  # so few find little
    Member(attack=PGD(steps=8, rate=0.25), threats=(Linf(0.15),), access=NES(n=40), reach=5.0),
    Member(attack=PGD(steps=8, rate=0.25), threats=(Linf(0.15),), access=SPSA(n=40), reach=5.0),
    # by the label alone
    Member(
        attack=HopSkipJump(steps=5, queries=15, tries=30), threats=(Linf(0.3),), access=LABELS, targeted=False,
        reach=2.5,
    ),
    Member(
        attack=HopSkipJump(steps=5, queries=15, tries=30), threats=(L2(1.0),), access=LABELS, targeted=False, reach=3.0
    ),
    Member(
        attack=GeoDA(steps=3, queries=15, low=None, tries=30), threats=(Linf(0.3), L2(1.0)), access=LABELS,
        targeted=False, reach=3.0,
    ),
    Member(
        attack=SignOPT(steps=3, queries=25, tries=30), threats=(L2(1.0), Linf(0.3)), access=LABELS, targeted=False,
        reach=4.0,
    ),
    Member(attack=RayS(steps=120), threats=(Linf(0.3),), access=LABELS, targeted=False, reach=2.5, random=False),
    Member(
        attack=BoundaryAttack(steps=60, around=0.3, toward=0.3, tries=30), threats=(L2(1.0),), access=LABELS,
        targeted=False, reach=6.0,
    ),
    Member(attack=SurFree(steps=15, low=1.0, tries=30), threats=(L2(1.0),), access=LABELS, targeted=False, reach=3.5),
    Member(attack=Draws(steps=4), threats=(Linf(0.5), L2(1.5)), access=SCORES, reach=None),
    # attacks made of attacks, and other ways of seeing
    Member(attack=Restarts(PGD(steps=10, rate=0.25), 2), threats=BALLS, reach=1.5),
    Member(attack=Restarts(FAB(steps=10, start=Within()), 2), threats=(L2(0.6),), targeted=False, reach=1.05),
    Member(attack=EachTarget(PGD(steps=10, rate=0.25, loss=Margin()), 2), threats=BALLS, targeted=False, reach=1.5),
    Member(
        attack=EachTarget(APGD(steps=10, loss=Margin()), 2), threats=(Linf(0.15), L2(0.6)), targeted=False, reach=1.1
    ),
    Member(attack=EachTarget(FAB(steps=10), 2), threats=(Linf(0.15),), targeted=False, reach=1.05, random=False),
    Member(attack=Union(FGSM(), PGD(steps=10, rate=0.25)), threats=BALLS, reach=1.5, random=False),
    Member(attack=PGD(steps=8, rate=0.25), threats=(Linf(0.15),), access=EOT(n=2), reach=1.5),
)  # fmt: skip
