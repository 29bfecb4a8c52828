"""Tests of the tests: every broken member, and every broken engine, fails the promise that names its fault."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from adamant import L2, PGD, CrossEntropy, Linf, WhiteBox, calling, engine
from adamant.access import Cost, Sight
from adamant.attacks.gradient import At, climb
from adamant.goals import Untargeted
from adamant.testing import EVERY, ONCE, Member, cases, conformance

THREAT = Linf(0.15)


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """PGD from the input itself, to be broken in one place."""

    steps: int = 20
    loss: CrossEntropy = CrossEntropy()
    needs: ClassVar[Sight] = Sight.GRADIENT

    def init(self, p):
        return At(p.x)

    def step(self, p, s, seen, t):
        return At(climb(p, s.z, seen.grad, 0.1))


class Identity(Mutant):
    def step(self, p, s, seen, t):
        return s


class NoProjection(Mutant):
    def step(self, p, s, seen, t):
        return At(p.threat.clip(p.threat.move(s.z, seen.grad, 0.2)))


class WrongSign(Mutant):
    def step(self, p, s, seen, t):
        return At(climb(p, s.z, -seen.grad, 0.1))


class BoxForgotten(Mutant):
    def step(self, p, s, seen, t):
        free = replace(p.threat, box=(-9.0, 9.0))
        return At(free.project(free.move(s.z, seen.grad, 0.1), p.x))


class GlobalRandom(Mutant):
    def init(self, p):
        return At(p.threat.project(p.x + 0.1 * torch.randn(p.x.shape, dtype=p.x.dtype), p.x))


class BatchCoupled(Mutant):
    def step(self, p, s, seen, t):
        return At(climb(p, s.z, seen.grad - seen.grad.mean(0, keepdim=True), 0.1))


def broken_promises(member):
    """The names of the promises that fail, over the cases of ten classes in float32."""
    failed = set()
    for case in cases(member):
        if case.dtype != torch.float32:
            continue
        for promise in (*EVERY, *ONCE):
            if promise.__name__ == "repr_is_the_recipe":
                continue
            try:
                promise(case)
            except AssertionError:
                failed.add(promise.__name__)
    return failed


def member(attack, **changes):
    return Member(
        **{"attack": attack, "threats": (THREAT,), "reach": 1.3, "random": False, "targeted": False, **changes}
    )


def test_the_healthy_member_keeps_all_promises():
    assert broken_promises(member(Mutant())) == set()


@pytest.mark.parametrize(
    ("mutant", "promise"),
    [
        (Identity, "finds_what_is_there_and_nothing_else"),
        (WrongSign, "finds_what_is_there_and_nothing_else"),
        (NoProjection, "successes_are_inside_and_real"),
        (BoxForgotten, "successes_are_inside_and_real"),
        (GlobalRandom, "rows_do_not_depend_on_their_batch"),
        (BatchCoupled, "rows_do_not_depend_on_their_batch"),
    ],
)
def test_a_broken_attack_fails(mutant, promise):
    assert promise in broken_promises(member(mutant()))


def test_last_iterate_only_fails(monkeypatch):
    """An engine that judges only the last look misses what an attack passes on the way."""
    look = engine.Desk.look

    def last_only(self, p, z, loss, *, grad):
        if not grad:
            return look(self, p, z, loss, grad=grad)
        goal = Never(p.goal)
        return look(self, replace(p, goal=goal), z, loss, grad=grad)

    @dataclass(frozen=True)
    class Never:
        inner: object
        anchor = property(lambda self: self.inner.anchor)

        def reached(self, logits):
            return torch.zeros(len(logits), dtype=torch.bool)

    class Overshoots(Mutant):
        """Passes through success and goes back to where it came from."""

        def step(self, p, s, seen, t):
            return At(p.x if t == self.steps - 1 else climb(p, s.z, seen.grad, 0.1))

    assert "finds_what_is_there_and_nothing_else" not in broken_promises(member(Overshoots()))
    monkeypatch.setattr(engine.Desk, "look", last_only)
    assert "finds_what_is_there_and_nothing_else" in broken_promises(member(Overshoots()))


def test_a_model_left_in_eval_fails(monkeypatch):
    from contextlib import contextmanager

    @contextmanager
    def forgets(model, *, seed=0, training=False):
        model.eval()
        yield

    monkeypatch.setattr(engine, "untouched", forgets)
    assert "the_model_is_as_it_was" in broken_promises(member(Mutant()))


def test_an_unsealed_random_state_fails(monkeypatch):
    class Draws(Mutant):
        def init(self, p):
            torch.rand(3)
            return At(p.x)

    from contextlib import contextmanager

    @contextmanager
    def unsealed(seed):
        yield

    monkeypatch.setattr(calling, "sealed", unsealed)
    assert "the_model_is_as_it_was" in broken_promises(member(Draws()))


def test_weights_that_want_gradients_fail(monkeypatch):
    from contextlib import contextmanager

    monkeypatch.setattr(engine, "untouched", contextmanager(lambda model, *, seed=0, training=False: (yield)))
    assert "the_model_is_as_it_was" in broken_promises(member(Mutant()))


def test_nan_taken_for_success_fails(monkeypatch):
    monkeypatch.setattr(Untargeted, "reached", lambda self, logits: logits.argmax(1) != self.label)
    assert "nan_is_never_success" in broken_promises(member(Mutant()))


def test_an_unverified_success_fails(monkeypatch):
    """Without the check of membership, a point outside of the set would be handed out as a success."""
    monkeypatch.setattr(Linf, "contains", lambda self, z, x: torch.ones(len(z), dtype=torch.bool))
    case = next(iter(cases(member(NoProjection()))))
    out = case.run(case.bent(), case.inputs(), case.goal(case.bent(), case.inputs()))
    monkeypatch.undo()
    assert not THREAT.contains(out.x_adv, case.inputs()).all()


def test_forged_books_fail(monkeypatch):
    monkeypatch.setattr(WhiteBox, "cost", lambda self, *, grad: Cost(1, 0))
    assert "the_books_are_right" in broken_promises(member(Mutant()))


def test_another_point_than_the_best_fails(monkeypatch):
    settle = engine.Desk.settle

    def forgets(self):
        settle(self)
        self.best = self.best.clamp(0.01, 0.99)

    monkeypatch.setattr(engine.Desk, "settle", forgets)
    assert "what_is_handed_out_was_seen" in broken_promises(member(Mutant()))


def test_a_budget_that_is_not_kept_fails(monkeypatch):
    run = conformance.run

    def deaf(*args, settings, **rest):
        return run(*args, settings=replace(settings, max_looks=None), **rest)

    monkeypatch.setattr(conformance, "run", deaf)
    assert "the_books_are_right" in broken_promises(member(Mutant()))


def test_a_projection_that_does_nothing_fails(monkeypatch):
    """Foolbox's L2 projection of 2021 scaled by norms / norms: every point stayed where it was."""
    monkeypatch.setattr(L2, "project", lambda self, z, x: self.clip(z))
    failed = broken_promises(member(PGD(steps=20), threats=(L2(0.6),), random=True))
    assert "successes_are_inside_and_real" in failed
