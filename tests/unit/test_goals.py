"""Goals: when a row has what the adversary wants, and which goals fit a model."""

import pytest
import torch

from adamant.batch import take
from adamant.errors import InputError
from adamant.goals import Diverge, Goal, Targeted, Untargeted, top_class

NAN, INF = torch.nan, torch.inf
LOGITS = torch.tensor([[3.0, 1.0, 2.0], [1.0, 3.0, 2.0], [NAN, 1.0, 2.0], [1.0, NAN, 9.0], [0.0, INF, 1.0]])


def test_the_top_class_and_none_where_a_logit_is_nan() -> None:
    assert top_class(LOGITS).tolist() == [0, 1, -1, -1, 1]


@pytest.mark.parametrize("label", [0, 1, 2])
def test_untargeted_is_any_other_class_and_never_a_nan(label) -> None:
    goal = Untargeted(torch.full((5,), label))
    assert goal.reached(LOGITS).tolist() == [label != 0, label != 1, False, False, label != 1]
    assert torch.equal(goal.anchor, goal.label)


@pytest.mark.parametrize("target", [0, 1, 2])
def test_targeted_is_that_class_and_never_a_nan(target) -> None:
    goal = Targeted(torch.full((5,), (target + 1) % 3), torch.full((5,), target))
    assert goal.reached(LOGITS).tolist() == [target == 0, target == 1, False, False, target == 1]
    assert torch.equal(goal.anchor, goal.label)


def test_rows_of_nothing_but_nan_are_never_reached() -> None:
    logits, n = torch.full((3, 4), NAN), torch.zeros(3, dtype=torch.long)
    for goal in (Untargeted(n), Untargeted(n - 1), Targeted(n, n + 1), Diverge(torch.eye(4)[:3])):
        assert not goal.reached(logits).any()


def test_a_tie_is_decided_as_argmax_decides() -> None:
    tie = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    assert Untargeted(torch.tensor([0, 1])).reached(tie).tolist() == [False, True]
    assert Targeted(torch.tensor([1, 0]), torch.tensor([0, 1])).reached(tie).tolist() == [True, False]


def test_diverging_is_leaving_the_models_own_decision() -> None:
    goal = Diverge(torch.tensor([[0.0, 5.0, 1.0], [0.0, 5.0, 1.0]]))
    assert goal.anchor.tolist() == [1, 1]
    assert goal.reached(torch.tensor([[0.0, 1.0, 0.5], [0.0, 1.0, 1.5]])).tolist() == [False, True]
    goal.check(3)
    with pytest.raises(InputError, match="The reference has 3 classes, the model 4"):
        goal.check(4)


@pytest.mark.parametrize("value", [3, -1, 99])
def test_a_label_outside_the_classes_is_named_with_its_row(value) -> None:
    labels = torch.tensor([0, 2, value])
    with pytest.raises(InputError, match=rf"Label {value} of row 2 is outside 0\.\.2: the model has 3 classes"):
        Untargeted(labels).check(3)
    with pytest.raises(InputError, match=f"Label {value} of row 2"):
        Targeted(labels, torch.tensor([1, 1, 1])).check(3)
    with pytest.raises(InputError, match=f"Target {value} of row 2"):
        Targeted(torch.tensor([1, 1, 1]), labels).check(3)
    Untargeted(torch.tensor([0, 2])).check(3)


def test_a_target_that_is_the_label_is_refused() -> None:
    with pytest.raises(InputError, match=r"target of row 1 is its label \(2\): choose another target"):
        Targeted(torch.tensor([0, 2]), torch.tensor([1, 2])).check(3)


def test_goals_travel_with_their_rows() -> None:
    goal = take(Targeted(torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])), torch.tensor([2, 0]))
    assert goal.label.tolist() == [2, 0]
    assert goal.target.tolist() == [0, 1]
    assert isinstance(goal, Goal)
