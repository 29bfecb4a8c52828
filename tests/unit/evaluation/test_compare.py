"""Audits side by side: which rows are matched, what is counted on them, and what is refused or warned of."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adamant.errors import InputError
from adamant.evaluation import Side, compare

FALLS = {"r": "robust", "b": "broken", "w": "wrong_already", "o": "out_of_budget", "i": "invalid"}


def side(name, statuses, *, start=0, distance=None, **asked):
    """An audit whose rows are start, start + 1, ... and end as the letters say."""
    n = len(statuses)
    rows = {
        "row": list(range(start, start + n)),
        "label": [i % 10 for i in range(start, start + n)],
        "status": [FALLS[s] for s in statuses],
        "clean_prediction": [(i + (s == "w")) % 10 for i, s in enumerate(statuses, start)],
        "clean_confidence": [0.9] * n,
        "distance": distance or [None] * n,
    }
    return Side(**{"name": name, "rows": rows, "threat": "Linf(0.1)", "data": "digits", "suite": "standard", **asked})


def test_what_is_counted():
    found = compare([side("a", "rbwoirbb"), side("b", "rrwbirrb")])
    assert found.rows == 8
    assert [s.clean["correct"] for s in found.standings] == [7, 7]
    assert [s.robust["correct"] for s in found.standings] == [4, 5]  # out of budget and invalid stand
    (pair,) = found.pairs
    assert (pair.first, pair.second) == ("a", "b")
    figures = pair.robust
    assert (figures.both, figures.only_first, figures.only_second, figures.neither) == (3, 1, 2, 2)
    assert figures.difference == pytest.approx(1 / 8)
    assert figures.p == 1
    assert pair.clean.both == 7
    assert found.worst is None
    assert found.warnings == ()


def test_rows_are_matched_by_their_number_in_any_order():
    a, b = side("a", "rbrbrb"), side("b", "bbrrrr", start=2)
    turned = replace(b, rows={k: v[::-1] for k, v in b.rows.items()})
    found = compare([a, turned])
    assert (found.rows, dict(found.left_out)) == (4, {"a": 2, "b": 2})
    figures = found.pairs[0].robust  # a: r b r b, b: b b r r
    assert (figures.both, figures.only_first, figures.only_second, figures.neither) == (1, 1, 1, 1)


def test_all_pairs_are_on_the_rows_that_all_share():
    found = compare([side("a", "rrrr"), side("b", "bbrr"), side("c", "br", start=2)])
    assert found.rows == 2
    assert [(p.first, p.second, p.robust.rows) for p in found.pairs] == [("a", "b", 2), ("a", "c", 2), ("b", "c", 2)]


def test_the_median_is_of_the_rows_that_were_right():
    a = side("a", "bbrrw", distance=[0.3, 0.1, 0.2, None, 0.01])
    assert compare([a, side("b", "bbbbb")]).standings[0].median == 0.2
    assert compare([a, side("b", "bbbbb")]).standings[1].median is None
    assert compare([a, side("b", "bb")]).standings[0].median == 0.1  # of the two shared rows


def test_the_union_is_the_worst_case_of_each_row():
    found = compare([side("inf", "rrbbw"), side("two", "rbrbw"), side("one", "rrrbw")], union=True)
    assert found.worst.union["correct"] == 1
    assert found.worst.union["rows"] == 5
    assert found.worst.average == pytest.approx((2 + 2 + 3) / 15)


@given(st.lists(st.text("rbwoi", min_size=12, max_size=12), min_size=2, max_size=4))
def test_the_union_is_no_better_than_the_worst_and_no_worse_than_the_sum_allows(texts):
    wrong = ["w" if any(t[i] == "w" for t in texts) else "r" for i in range(12)]
    texts = ["".join("w" if w == "w" else t[i] for i, w in enumerate(wrong)) for t in texts]
    found = compare([side(str(i), t) for i, t in enumerate(texts)], union=True)
    each = [s.robust["correct"] for s in found.standings]
    fell = [12 - e for e in each]
    assert max(0, 12 - sum(fell)) <= found.worst.union["correct"] <= min(each)
    assert found.worst.union["accuracy"] <= found.worst.average
    assert found.worst.average == pytest.approx(sum(each) / (12 * len(each)))


@given(st.text("rbwoi", min_size=1, max_size=40), st.data())
def test_swapping_negates_the_difference_and_keeps_p(first, data):
    second = data.draw(st.text("rbwoi", min_size=len(first), max_size=len(first)))
    a, b = side("a", first), side("b", second)
    there, back = compare([a, b]).pairs[0], compare([b, a]).pairs[0]
    for one, other in ((there.clean, back.clean), (there.robust, back.robust)):
        assert (one.difference, one.low, one.high, one.p) == (-other.difference, -other.high, -other.low, other.p)


@pytest.mark.parametrize(
    ("sides", "union", "words"),
    [
        ([side("a", "rr")], False, "at least two audits, and got 1"),
        ([side("a", "rr"), side("a", "rr")], False, "same name"),
        ([side("a", "rr"), side("b", "rr", start=5)], False, "a, b share no row"),
        ([side("a", ""), side("b", "rr")], False, "share no row"),
    ],
)
def test_what_is_refused(sides, union, words):
    with pytest.raises(InputError, match=words):
        compare(sides, union=union)


def test_other_labels_are_other_data():
    a, b = side("a", "rrrrrrrr"), side("b", "rrrrrrrr")
    b.rows["label"][3] = 7
    with pytest.raises(InputError, match=r"1 of 8 shared rows have other labels in b than in a \(rows 3\)"):
        compare([a, b])
    b.rows["label"][:] = [9] * 8
    with pytest.raises(InputError, match=r"8 of 8 .* \(rows 0, 1, 2, 3, 4 \.\.\.\)"):
        compare([a, b])


def test_a_row_twice_cannot_be_matched():
    a = side("a", "rr")
    a.rows["row"][1] = 0
    with pytest.raises(InputError, match="a holds a row number twice"):
        compare([side("b", "rr"), a])


def test_it_warns_where_the_questions_differ():
    a = side("a", "rr")
    said = compare([a, side("b", "rr", threat="L2(0.5)")]).warnings
    assert len(said) == 1
    assert said[0].startswith("The threat is not the same (Linf(0.1) in a; L2(0.5) in b): ")
    assert "The data is not the same" in compare([a, side("b", "rr", data="mnist, test")]).warnings[0]
    assert "The suite is not the same" in compare([a, side("b", "rr", suite="quick")]).warnings[0]
    assert "only one ran PGD()" in compare([a, side("b", "rr", attacks=("PGD()",))]).warnings[0]
    assert len(compare([a, side("b", "rr", threat="L2(0.5)", attacks=("PGD()",))]).warnings) == 1
    assert compare([a, side("b", "rr", warnings=("NaN.",))]).warnings == ("b: NaN.",)


def test_a_union_of_two_models_is_refused():
    a, b = side("a", "r" * 200), side("b", "r" * 200)
    compare([a, b], union=True)
    b.rows["clean_confidence"][0] = 0.5
    assert "b answers 1 of 200 shared rows otherwise than a" in compare([a, b], union=True).warnings[0]
    b.rows["clean_prediction"][1:3] = [5, 5]
    assert compare([a, b]).rows == 200
    with pytest.raises(InputError, match="b answers 3 of 200 shared rows otherwise than a, clean"):
        compare([a, b], union=True)
