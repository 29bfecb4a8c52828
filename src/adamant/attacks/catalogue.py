"""Every attack with its source, its cost and when to use it: what `adamant attacks` lists."""

from __future__ import annotations

from dataclasses import dataclass

from adamant.access import Sight
from adamant.attacks.alma import ALMA
from adamant.attacks.apgd import APGD, APGDL1
from adamant.attacks.bandits import Bandits
from adamant.attacks.boundary import BoundaryAttack
from adamant.attacks.carlini import EAD, CarliniWagner, CarliniWagnerLinf
from adamant.attacks.carlini_l0 import CarliniWagnerL0
from adamant.attacks.composites import EachTarget, Restarts, Union
from adamant.attacks.cosine import CosinePGD
from adamant.attacks.ddn import DDN
from adamant.attacks.deepfool import DeepFool, SparseFool, SuperDeepFool
from adamant.attacks.fab import FAB
from adamant.attacks.fmn import FMN
from adamant.attacks.geoda import GeoDA
from adamant.attacks.gradient import BIM, FGM, FGSM, MIFGSM, NIFGSM, PGD, RFGSM, AdamPGD, FrankWolfe
from adamant.attacks.hopskipjump import HopSkipJump
from adamant.attacks.latent import LatentSearch
from adamant.attacks.learned import NAG, AdvGAN
from adamant.attacks.nearest import Insist, Nearest
from adamant.attacks.one_pixel import OnePixel
from adamant.attacks.pdpgd import PDPGD
from adamant.attacks.rays import RayS
from adamant.attacks.saliency import JSMA
from adamant.attacks.search import Draws, RandomSearch
from adamant.attacks.sigma_zero import SigmaZero
from adamant.attacks.sign_opt import SignOPT
from adamant.attacks.simba import SimBA
from adamant.attacks.sparse_rs import SparseRS
from adamant.attacks.square import Square
from adamant.attacks.surfree import SurFree
from adamant.attacks.universal import SameChange
from adamant.attacks.variance import VMIFGSM
from adamant.attacks.zoo import ZOO


@dataclass(frozen=True)
class Entry:
    """A line of the catalogue; cost is passes for a row that is not broken."""

    member: type
    source: str
    cost: str
    when: str

    @property
    def name(self) -> str:
        """As it is typed."""
        return self.member.__name__

    @property
    def needs(self) -> str:
        """How much it must see of the model."""
        sight = getattr(self.member, "needs", None)
        return sight.name.lower() if isinstance(sight, Sight) else "-"

    @property
    def within(self) -> str:
        """The threat models that it works in."""
        if not isinstance(getattr(self.member, "needs", None), Sight):
            return "-"
        return ", ".join(t.__name__ for t in threats) if (threats := getattr(self.member, "threats", ())) else "any"

    @property
    def finds(self) -> str:
        """A change within the budget, or the smallest."""
        if not isinstance(getattr(self.member, "needs", None), Sight):
            return "-"
        return "smallest" if hasattr(self.member, "minimal") else "within"


_ONE_STEP, _STEPS = "2 forwards + 1 backward", "steps + 1 forwards, steps backwards"
_LOOKS = "steps + 1 forwards"

CATALOGUE: tuple[Entry, ...] = (
    # by gradient, within a budget
    Entry(FGSM, "Goodfellow et al., 2015, arXiv:1412.6572", _ONE_STEP, "a first smoke test; and inside fast training"),
    Entry(RFGSM, "Tramèr et al., 2018, arXiv:1705.07204", _ONE_STEP, "when the gradient at the input itself is masked"),
    Entry(FGM, "Goodfellow et al., 2015, arXiv:1412.6572", _ONE_STEP, "to see the plain gradient step; weak on Linf"),
    Entry(BIM, "Kurakin et al., 2017, arXiv:1607.02533", _STEPS, "a deterministic PGD"),
    Entry(PGD, "Madry et al., 2018, arXiv:1706.06083", _STEPS, "the standard first-order attack, for every norm"),
    Entry(
        CosinePGD, "Liu et al., 2022, arXiv:2203.05154", _STEPS,
        "the most in ten or twenty steps, whatever the scale of the logits",
    ),
    Entry(
        APGD, "Croce & Hein, 2020, arXiv:2003.01690", _STEPS,
        "the strongest single gradient attack within a budget; no step size to choose",
    ),
    Entry(APGDL1, "Croce & Hein, 2021, arXiv:2103.01208", _STEPS, "the same for L1"),
    Entry(MIFGSM, "Dong et al., 2018, arXiv:1710.06081", _STEPS, "when examples are to transfer to another model"),
    Entry(NIFGSM, "Lin et al., 2020, arXiv:1908.06281", _STEPS, "as MIFGSM, looking ahead"),
    Entry(
        VMIFGSM, "Wang & He, 2021, arXiv:2103.15571", "(neighbours + 1) x steps forwards and backwards",
        "transfers further than MIFGSM, for 21 times the passes",
    ),
    Entry(AdamPGD, "Uesato et al., 2018, arXiv:1802.05666", _STEPS, "gradients that differ much from entry to entry"),
    Entry(FrankWolfe, "Chen et al., 2020, arXiv:1811.10828", _STEPS, "a second opinion beside PGD"),
    Entry(
        JSMA, "Papernot et al., 2016, arXiv:1511.07528", "a forward and 2 backwards for each pair",
        "few entries, a pair at a time, from a map that one can look at; SigmaZero needs fewer entries",
    ),
    # by gradient, the smallest change
    Entry(
        DeepFool, "Moosavi-Dezfooli et al., 2016, arXiv:1511.04599",
        "up to steps + 1 forwards, classes x steps backwards; most rows need 8 steps",
        "how far the boundary is, in a few passes",
    ),
    Entry(
        SuperDeepFool, "Abdolahpourrostam et al., 2023, arXiv:2303.12481",
        "up to steps + 4 forwards, classes x steps backwards",
        "nearer to the smallest change than DeepFool, still cheap",
    ),
    Entry(
        SparseFool, "Modas et al., 2019, arXiv:1811.02248", "up to steps + 1 forwards, classes x steps backwards",
        "few entries by geometry; FMN and SigmaZero find smaller changes",
    ),
    Entry(DDN, "Rony et al., 2019, arXiv:1811.09600", _STEPS, "the smallest change for the money"),
    Entry(FMN, "Pintor et al., 2021, arXiv:2102.12827", _STEPS, "small changes in any norm in few passes"),
    Entry(
        FAB, "Croce & Hein, 2020, arXiv:1907.02044", "2 x steps + 6 forwards, steps backwards for each class",
        "a minimum-norm attack that does not depend on the scale of gradients; a part of AutoAttack",
    ),
    Entry(ALMA, "Rony et al., 2021, arXiv:2011.11857", _STEPS, "with 1000 steps, for a precise minimum"),
    Entry(
        PDPGD, "Matyasko & Chau, 2021, arXiv:2106.01538", _STEPS,
        "small changes in any norm, above all L1 and L0, given 200 steps; with fewer, FMN",
    ),
    Entry(
        CarliniWagner, "Carlini & Wagner, 2017, arXiv:1608.04644",
        "rounds x each + 1 forwards, rounds x each backwards",
        "to compare with published figures, or against gradients that saturate",
    ),
    Entry(
        CarliniWagnerLinf, "Carlini & Wagner, 2017, arXiv:1608.04644", "up to steps + 1 forwards, steps backwards",
        "to compare with published figures; FMN finds smaller changes in far fewer passes",
    ),
    Entry(
        CarliniWagnerL0, "Carlini & Wagner, 2017, arXiv:1608.04644", "up to steps + 1 forwards, steps backwards",
        "as few entries as SigmaZero finds, in thrice the passes",
    ),
    Entry(
        EAD, "Chen et al., 2018, arXiv:1709.04114", "rounds x each + 1 forwards, rounds x each backwards",
        "to compare with published figures; FMN is far cheaper",
    ),
    Entry(SigmaZero, "Cinà et al., 2024, arXiv:2402.01879", _STEPS, "the fewest entries for the money"),
    # by scores
    Entry(Square, "Andriushchenko et al., 2020, arXiv:1912.00049", _LOOKS, "the standard attack by scores"),
    Entry(
        SparseRS, "Croce et al., 2022, arXiv:2006.12834", _LOOKS,
        "few entries or pixels without a gradient, and to check gradient attacks",
    ),
    Entry(SimBA, "Guo et al., 2019, arXiv:1905.07121", _LOOKS, "the simplest; low=1/8 for large pictures"),
    Entry(
        Bandits, "Ilyas et al., 2019, arXiv:1807.07978", "2 steps + 1 forwards",
        "large pictures, when the gradient changes little from step to step",
    ),
    Entry(
        ZOO, "Chen et al., 2017, arXiv:1708.03999", "rounds x each x (2 x entries + 1) forwards",
        "small changes by scores alone, or to compare with older work; many queries",
    ),
    Entry(RandomSearch, "Rastrigin, 1963", _LOOKS, "inputs of any kind, parameters too"),
    Entry(
        OnePixel, "Su et al., 2019, arXiv:1710.08864", "(population + 1) x (steps + 1) forwards",
        "how far a single pixel goes; SparseRS for more",
    ),
    # by the label alone
    Entry(
        HopSkipJump, "Chen et al., 2020, arXiv:1904.02144", "about 67 x steps^1.5 + 20 x steps forwards",
        "the standard where only the label is shown",
    ),
    Entry(
        SignOPT, "Cheng et al., 2020, arXiv:1909.10773", "about (queries + 40) x steps forwards",
        "a second opinion beside HopSkipJump, with many queries",
    ),
    Entry(
        GeoDA, "Rahmati et al., 2020, arXiv:2003.06468", "60 to 4300 + 15 x steps forwards in 1 to 10 steps",
        "only the label is shown, queries are few, and the inputs are pictures",
    ),
    Entry(RayS, "Chen & Gu, 2020, arXiv:2006.12792", _LOOKS, "only the label is shown; nothing to tune"),
    Entry(
        SurFree, "Maho et al., 2021, arXiv:2011.12807", "3 to 10 x steps forwards",
        "only the label is shown and queries are few; best on pictures",
    ),
    Entry(
        BoundaryAttack, "Brendel et al., 2018, arXiv:1712.04248", "about 1.1 x steps + 10 forwards",
        "for comparison with older work",
    ),
    Entry(
        Draws, "Engstrom et al., 2019, arXiv:1712.02779", _LOOKS,
        "the worst of k: for turns and shifts, and to see what noise alone does",
    ),
    # one change for all rows
    Entry(SameChange, "Moosavi-Dezfooli et al., 2017, arXiv:1610.08401", "1 forward", "to judge a universal change"),
    Entry(
        NAG, "Mopuri et al., 2018, arXiv:1712.03390", _LOOKS,
        "universal changes drawn from a trained generator, the worst of k",
    ),
    # one change for each input, made by a trained network
    Entry(
        AdvGAN, "Xiao et al., 2018, arXiv:1801.02610", "1 forward",
        "many inputs at once, where training a generator pays; it sees nothing of the model when it attacks",
    ),
    Entry(
        LatentSearch, "Song et al., 2018, arXiv:1805.07894", _STEPS,
        "unrestricted examples: what a generator draws, within the threat model that says what counts",
    ),
    # attacks made of attacks
    Entry(Restarts, "repetition", "n times its attack", "to average out the luck of a random start"),
    Entry(
        EachTarget, "Gowal et al., 2019, arXiv:1910.09338", "n times its attack + 1 forward",
        "when the way to one wrong class is blocked",
    ),
    Entry(Union, "worst case per row", "the sum of its attacks", "one verdict from several attacks"),
    Entry(Nearest, "as Liu et al., 2022, arXiv:2203.05154", "its attack, on some rows", "effort where it pays"),
    Entry(
        Insist, "as Liu et al., 2022, arXiv:2203.05154", "its attacks, while a row gains",
        "long searches that give up where they lead nowhere",
    ),
)  # fmt: skip
