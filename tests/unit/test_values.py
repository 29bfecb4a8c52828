"""Settings as text: every setting of the house reads back, and nothing else is ever read."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adamant
from adamant import access, evaluation, losses, threats
from adamant.attacks import (
    BIM,
    FAB,
    FGM,
    FGSM,
    MIFGSM,
    PGD,
    RFGSM,
    CarliniWagner,
    CosinePGD,
    EachTarget,
    Insist,
    Nearest,
    RandomSearch,
    Restarts,
    SameChange,
    SimBA,
    Union,
    catalogue,
    starts,
)  # fmt: skip
from adamant.batch import PerRow, Shared
from adamant.bounds import Intervals, Lines
from adamant.cli import words
from adamant.errors import InputError
from adamant.losses import DLR, CrossEntropy, Margin
from adamant.runtime import augment, optimizers
from adamant.runtime.average import EMA
from adamant.runtime.knobs import Constant, Cosine, OneCycle, Ramp
from adamant.runtime.optimizers import SGD, Adam
from adamant.threats import L0, L1, L2, Flow, Linf, Pasted, Patch, Recolour, Spatial, Wasserstein
from adamant.training import SWA, Plan, recipes
from adamant.training import catalogue as training
from adamant.training.bounded import Blend, Guarantee
from adamant.training.inner import Ascend, Keep, Pool, Stages, Stray, Together, Under
from adamant.training.onestep import Guided, Overshoot
from adamant.training.outer import CE, Balanced, Divergence, Squared, Sum, Times, Worst
from adamant.training.paced import Early
from adamant.training.pairs import Boosted, Doubted, Paired, Steady
from adamant.training.randomised import FromMean, MeanCE, MeanEntropy, Noisy, NoisyAscend, Radius
from adamant.training.several import ByError, OneOf, Steepest
from adamant.training.slopes import Bend, Curved, Plane, Sensitivity, Steepness
from adamant.training.teacher import Depart, Taught, Teacher
from adamant.training.terms import Apart, Hinged, Misaligned, Nuclear
from adamant.training.virtual import Virtual
from adamant.values import brief, read

WORDS = {
    **words.PARTS, **words.ATTACKS, **words.THREATS, **words.ACCESS, **words.RECIPES, **words._TRAINING,
    **words.OPTIMIZERS, **words.AUGMENTS, "Plan": Plan, "Suite": evaluation.Suite,
    "Course": evaluation.Course,
}  # fmt: skip
NAMES = {**WORDS, "inf": math.inf}

THREATS = [
    Linf(8 / 255), Linf(0.1 + 0.2), L2(0.5, box=(-1.0, 3.0)), L1(12.0, spread=0.0), L0(10), L0(3.0, pixels=True),
    Linf(0.1, box=(-math.inf, math.inf)), Linf(0.1, box=(0.0, math.inf)),
    Linf(PerRow([8 / 255, 1 / 3])), L2(1e-7, mask=Shared([[True, False], [False, True]])),
    L2(), Linf(math.inf), Patch((3, 5)), Patch((1, 1), box=(-1.0, 1.0)), Spatial(degrees=10.0), Flow(),
    Recolour(reach=0.3), Pasted(picture=Shared([[[0.5, 0.25]]]), mask=Shared([[True, False]]), degrees=10.0),
    Wasserstein(reach=0.3),
    L1(PerRow([1, 2]), mask=PerRow([[True], [False]])), Linf(123456789.123), Linf(1 / 255), Linf(0.5 / 255),
]  # fmt: skip
ATTACKS = [
    FGSM(), FGSM(loss=DLR()), RFGSM(share=0.25), FGM(), BIM(steps=3, rate=1 / 3), PGD(), PGD(steps=7,
    start=starts.Near(0.002)),
    MIFGSM(decay=0.9), RandomSearch(wide=0.1), Restarts(PGD(steps=5), 3), Restarts(FGSM()),
    Union(CosinePGD(start=starts.Diverse()), Nearest(PGD(start=starts.Best()), 0.3), Insist(PGD(), FGSM(), gain=0.2)),
    Nearest(PGD(), 0.3), Insist(PGD(), gain=0.2), Insist(FGSM(), BIM()), CosinePGD(wide=2.0),
    FAB(start=starts.Within()), SameChange(Shared([[0.5, 0.25]])), SimBA(low=1 / 8), CarliniWagner(rounds=3),
    EachTarget(PGD(loss=Margin()), 3), Union(FGSM(), Restarts(Union(PGD(), BIM()), 2)), Union(FGSM()),
]  # fmt: skip
TRAINING = [
    EMA(), EMA(0.999), Constant(), Constant(0.3), Ramp(), Ramp(until=0.7), OneCycle(low=0.0), Cosine(),
    CE("clean"), CE("it's", smoothing=0.1), Times(2.5, CE("adv")), Sum(CE("clean"), Times(0.1, CE("adv"))),
    Sum(CE("a")),
    Balanced(CE("clean"), CE("adv")), Balanced(CE("clean"), Sum(CE("adv"), CE("l1")), 0.25),
    Divergence("clean", "adv"), Squared("clean", "adv"), Worst(CE("linf"), CE("l2")), Times(2.0, CE("adv"), Ramp()),
    Stray(PGD(loss=losses.KL())), Under(L2(0.5), Ascend(FGSM(), "l2")), Together(Keep(), Ascend(FGSM())),
    Stages(((0.5, Ascend(FGSM())), (1.0, Keep()))), SWA(), augment.Crop(2), Plan(augment=(augment.Flip(),)),
    Intervals(), Lines(), Lines(slope=0.0, everywhere=True), Ramp(high=1.2), Guarantee(),
    Guarantee(Lines(), "adv", 0.4, toward=Intervals(), by=Ramp()), Blend(CE("clean"), Guarantee(), Ramp(low=1.0)),
    Noisy(0.25, 2), NoisyAscend(PGD(), 0.5), MeanCE(("noisy0", "noisy1")), FromMean(("a",)), MeanEntropy(("a", "b")),
    Radius(("a", "b"), 0.25), recipes.smoothadv(attack=FGSM()), recipes.ibp(eps=Ramp(high=1.2)),
    Misaligned("adv"), Hinged(), Apart("clean", "adv"), Nuclear("clean", "adv"), Overshoot(noise=1.0),
    Early(after=(1,)), Guided(guide=Times(2.0, Nuclear("clean", "adv"), Ramp())), recipes.curriculum(steps=(2, 3)),
    recipes.fast(guard=None),
    Boosted("adv"), Doubted("clean", "adv"), Steady("clean", "adv"), Paired("linf", "l1"), Teacher("a/b.safetensors"),
    Taught("adv", Teacher("t.pt2"), 2.0), Depart(PGD(loss=losses.KL()), Teacher()), Bend(3, start=starts.Here()),
    Steepness(), Sensitivity("clean", 3), Curved("clean", "ahead"), Plane(rise=1.0), Virtual(2), OneOf(Keep(), Keep()),
    ByError((Under(Linf(0.3), Ascend(FGSM())), Under(L1(10), Ascend(FGSM())))), Steepest((Linf(0.3), L2(2)), steps=5),
    recipes.average(threats=(L2(1), L2(2))), recipes.distilled(teacher=Teacher("x.safetensors"), share=1.0),
    Keep(), Ascend(PGD(steps=3)), Pool(FGSM()), Pool(FGSM(), 5), Adam(), SGD(0.05), SGD(momentum=0.0),
    Adam(betas=(0.5, 0.9)),
    Plan(), Plan(epochs=3, optimizer=SGD(), shape=Cosine(), patience=2, select=PGD(steps=2)),
    *(make() for make in recipes.CATALOGUE),
    recipes.mixed(lam=0.5, attack=PGD(), average=EMA(), eps=Ramp()), recipes.mixed(adaptive=0.3),
    recipes.madry(attack=Union(FGSM(), BIM())), recipes.augmented(keep=1),
]  # fmt: skip
OTHER = [
    *(m() for m in (*losses.CATALOGUE, *starts.CATALOGUE, *access.CATALOGUE)), access.NES(n=10, sigma=1e-5),
    access.EOT(3),
    *evaluation.CATALOGUE, evaluation.Suite("mine", (FGSM(),)), PerRow([0.1]), Shared([[True]]),
]  # fmt: skip
EVERYTHING = [*THREATS, *ATTACKS, *TRAINING, *OTHER]


@pytest.mark.parametrize("value", EVERYTHING, ids=lambda v: brief(v)[:60])
def test_every_setting_reads_back(value) -> None:
    assert eval(repr(value), {"__builtins__": {}}, NAMES) == value
    for text in (repr(value), brief(value)):
        again = read(text, WORDS, kind="setting")
        assert again == value
        assert hash(again) == hash(value)
    assert repr(read(repr(value), WORDS, kind="setting")) == repr(value)
    assert len(brief(value)) <= len(repr(value))


def test_no_member_of_a_catalogue_is_left_out() -> None:
    covered = {type(v) for v in EVERYTHING}
    members = [
        *threats.CATALOGUE, *(e.member for e in catalogue.CATALOGUE), *starts.CATALOGUE, *losses.CATALOGUE,
        *access.CATALOGUE, *training.PARTS, *training.AUGMENTS, *optimizers.CATALOGUE, Plan,
    ]  # fmt: skip
    missing = [m.__name__ for m in members if m not in covered]
    for name in missing:  # a member of a later version: at least as it comes
        made = WORDS[name]()
        assert read(brief(made), WORDS, kind="setting") == made


@pytest.mark.parametrize("value", EVERYTHING, ids=lambda v: brief(v)[:60])
def test_settings_cannot_be_changed(value) -> None:
    name = dataclasses.fields(value)[0].name if dataclasses.fields(value) else "new"
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError, AttributeError)):
        setattr(value, name, 1)


@given(st.floats(allow_nan=False))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_every_number_reads_back(number) -> None:
    assert read(brief(number), WORDS, kind="number") == number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Linf(8 / 255), "Linf(8/255)"), (Linf(0.3), "Linf(0.3)"), (PGD(), "PGD()"), (PGD(steps=7), "PGD(steps=7)"),
        (PGD(loss=DLR()), "PGD(loss=DLR())"), (L2(0.5, box=(-1.0, 1.0)), "L2(0.5, box=(-1, 1))"),
        (Restarts(FGSM(), 3), "Restarts(FGSM(), n=3)"), (Union(FGSM(), PGD(steps=2)), "Union(FGSM(), PGD(steps=2))"),
        (evaluation.Suite("a", (FGSM(),)), "Suite('a', attacks=(FGSM(),))"),
    ],
)  # fmt: skip
def test_short_as_one_would_type_it(value, text) -> None:
    assert brief(value) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("linf:8/255", Linf(8 / 255)), ("LINF: 8/255", Linf(8 / 255)), ("l2:0.5", L2(0.5)),
        ("l1:12, spread=0.0", L1(12, spread=0.0)), ("l0:10", L0(10)), ("Linf(8/255)", Linf(8 / 255)),
        (" Linf( eps = 2 * (3 + 1) / 255 - 0 ) ", Linf(8 / 255)), ("PGD", PGD()), ("PGD()", PGD()),
        ("PGD(loss=DLR, start=Near(sigma=-1+2))", PGD(loss=DLR(), start=starts.Near(1))),
        ("Linf(0.1, (-1, 1))", Linf(0.1, (-1, 1))), ("Linf(.1, box=(-inf, inf))", Linf(0.1, box=(-math.inf,
        math.inf))),
        ("ramp", recipes.ramp()), ("Ramp", Ramp()),
        ("CE('clean')", CE("clean")), ("Plan(patience=None)", Plan()), ("L0(1, pixels=True)", L0(1, pixels=True)),
    ],
)  # fmt: skip
def test_what_people_type(text, value) -> None:
    assert read(text, WORDS, kind="setting") == value


@pytest.mark.parametrize(
    "text",
    [
        "", "   ", "(", "PGD(", "PGD()()", "PGD.steps", "PGD().steps", "().__class__", "''.join('a')",
        "lambda: 1", "PGD(steps=lambda: 1)", "[x for x in (1,)]", "{x for x in (1,)}", "(x for x in (1,))",
        "__import__('os')", "__import__", "__builtins__", "PGD(__class__=1)", "import os", "os.system('true')",
        "eval('1')", "exec('1')", "open('/etc/passwd')", "print(1)", "PGD(**{'steps': 1})", "PGD(**PGD())",
        "PGD(*(1,))",
        "PGD(steps=1, **{})", "f'{1}'", "PGD(steps=f'{1}')", "b'bytes'", "1j", "...", "2**9999999",
        "PGD(steps=2**9999999)",
        "9**9**9**9", "1 << 99999999", "1 // 1", "1 % 1", "1 if 1 else 2", "1 and 2", "not 1", "1 < 2", "~1",
        "(y := 1)",
        "{'a': 1}", "{1}", "x[0]", "'a' * 1000000000", "10 * 'a'", "(1,) * 1000000000", "'a' + 'b'", "-'a'", "-True",
        "True + 1", "await PGD()", "yield", "PGD(); PGD()", "PGD(\n)\nPGD()", "PGDD(steps=1)", "PGD(stepz=1)",
        "PGD(1)",
        "PGD(steps=1, steps=2)", "Linf('a')", "Linf(None)", "Linf([1, 2])", "Linf(1, box=(0,))",
        "Linf(1, mask=(1, 2))", "Linf(0)", "Linf(nan)", "Linf(-1)", "1/0", "Linf(1/0)", "linf:1:2", "nope:1",
        "1.0.0", "\x00", "PGD(\x00)", "9" * 5000, "-" * 5000 + "1", "(" * 5000, "1" + "*9" * 20000, "PGD()" * 2,
    ],
)  # fmt: skip
def test_nothing_else_is_read(text) -> None:
    with pytest.raises(InputError) as refusal:
        read(text, WORDS, kind="setting")
    assert len(str(refusal.value)) < 12000


@given(st.text(max_size=30) | st.text("PGDLinf()[]{}.,:=*/+-'\"0129 lambdxor_", max_size=25))
@settings(max_examples=400, deadline=None, derandomize=True)
def test_any_text_gives_a_value_or_one_kind_of_error(text) -> None:
    try:
        read(text, WORDS, kind="setting")
    except InputError:
        return


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("PGDD()", "There is no setting named 'PGDD'. Did you mean PGD"),
        ("pgd()", "Did you mean PGD"),
        ("Qqqqqq()", "Known: "),
        ("1/0", "divides by zero"),
        ("PGD(stepz=1)", "PGD cannot be made from 'PGD(stepz=1)'"),
        ("L2(1, 2, 3, 4)", "L2 cannot be made from 'L2(1, 2, 3, 4)': "),
        ("Linf(-1)", "The budget must be positive"),
        ("PGD(", "write it as in Python"),
        ("2**9", "'2 ** 9' has no place"),
        ("Linf('a' * 3)", "is not a number"),
    ],
)
def test_a_refusal_says_what_to_do(text, said) -> None:
    with pytest.raises(InputError) as refusal:
        read(text, WORDS, kind="setting")
    assert said in str(refusal.value)


def test_only_the_words_given_are_known() -> None:
    with pytest.raises(InputError, match="There is no threat model named 'PGD'"):
        read("PGD()", words.THREATS, kind="threat model")
    called = []
    read("a(b(1), c=(b(2), 'x'))", {"a": lambda *p, c: called.append((p, c)), "b": lambda n: n * 10}, kind="k")
    assert called == [((10,), (20, "x"))]


def test_the_face_lists_what_can_be_typed() -> None:
    assert set(words.ATTACKS) <= set(adamant.__all__)
    assert isinstance(read(brief(CrossEntropy()), WORDS, kind="loss"), CrossEntropy)
