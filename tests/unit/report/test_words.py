"""Numbers and threat models in plain words."""

import pytest

from adamant.report import Data, Threat
from adamant.report.words import budget, clean_text, duration, is_picture, share


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1361, "13.6 %"),
        (0, "0 %"),
        (1, "100 %"),
        (0.9999, "99.9 %"),
        (0.0001, "< 0.1 %"),
        (0.03, "3.0 %"),
    ],
)
def test_share(value, text):
    assert share(value).replace("\u00a0", " ") == text


def test_at_least_is_never_rounded_up():
    assert share(0.8639, rounding="down").startswith("86.3")
    assert share(318 / 360, rounding="down").startswith("88.3")
    assert share(0.3, rounding="down").startswith("30.0")


def data(*shape):
    return Data(spec="d", rows=1, shape=shape)


@pytest.mark.parametrize(
    ("threat", "shape", "told"),
    [
        (
            ("Linf(0.1)", "Linf", 0.1),
            (1, 8, 8),
            "each of the 64 pixels up or down, all at once, by at most 10 % of the full",
        ),
        (
            ("Linf(8/255)", "Linf", 8 / 255),
            (3, 32, 32),
            "3,072 colour values up or down, all at once, by at most 3.14 %",
        ),
        (("Linf(8/255)", "Linf", 8 / 255), (3, 32, 32), "(8 of 255 shades)"),
        (
            ("Linf(0.3, box=(0.0, 1.0))", "Linf", 0.3),
            (12,),
            "each of the 12 values up or down, all at once, by at most 30 %",
        ),
        (("Linf(8, box=(0.0, 255.0))", "Linf", 8.0), (28, 28), "by at most 3.14 % of the full range (8 of 255 shades)"),
        (("Linf(0.3, box=(-inf, inf))", "Linf", 0.3), (12,), "by at most 0.3 in the input's own units"),
        (("L2(0.5)", "L2", 0.5), (1, 8, 8), "64 pixels by 6.25 % of the full range, or a single pixel by 50 % of it"),
        (("L2(2)", "L2", 2.0), (1, 8, 8), "or 4 pixels from one end of the range to the other"),
        (("L1(12)", "L1", 12.0), (28, 28), "add up to at most 12: for example all 784 pixels by 1.53 %"),
        (("L0(10)", "L0", 10.0), (1, 8, 8), "replace at most 10 of the 64 pixels of an input by any other values"),
        (("L0(3, pixels=True)", "L0", 3.0), (3, 8, 8), "replace at most 3 pixels of an input"),
        (("Patch(5, 5)", None, None), (1, 8, 8), "in any way that the threat model Patch(5, 5) allows"),
        (("SNR(40)", "SNR", 40.0), (100,), "in any way that SNR(40) allows (budget 40)"),
    ],
)
def test_budget(threat, shape, told):
    name, norm, eps = threat
    assert told in budget(Threat(repr=name, norm=norm, eps=eps), data(*shape)).replace("\u00a0", " ")


def test_what_is_a_picture():
    assert all(is_picture(shape) for shape in [(1, 8, 8), (3, 32, 32), (28, 28), (224, 224, 3), (8, 8, 1)])
    assert not any(is_picture(shape) for shape in [(64,), (2, 8, 8), (1, 1, 16000), (1, 16000), (), (3, 2, 2)])


def test_duration_and_clean_text():
    assert [duration(s).replace("\u00a0", " ") for s in (1.5, 59.9, 95.2, 7260)] == [
        "1.5 s",
        "59.9 s",
        "1 min 35 s",
        "2 h 1 min",
    ]
    assert clean_text("a\n\x00b\u200b  c") == "a b c"
    assert clean_text("x" * 100, 10) == "x" * 9 + "…"
