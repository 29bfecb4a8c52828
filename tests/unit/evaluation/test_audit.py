"""The audit: what counts, what is counted, and that nothing depends on how the rows are cut."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import adamant as am
from adamant.access import ScoresOnly
from adamant.attacks import PGD, CosinePGD, Draws, Nearest, RandomSearch, Restarts
from adamant.batch import PerRow
from adamant.calling import Settings
from adamant.engine import run
from adamant.errors import InputError
from adamant.evaluation import QUICK, Course, Order, Suite, audit, write_tables
from adamant.evaluation.acceptance import accepted
from adamant.goals import Untargeted
from adamant.losses import Margin
from adamant.threats import L0, L1, L2, Linf, Spatial

from .conftest import shortened
from .test_suites import held_together

EPS = Linf(0.08)
PLAIN = Suite("plain", (CosinePGD(steps=3), Nearest(CosinePGD(steps=5), 0.6), Restarts(PGD(steps=3), 2)))


class Wrapped(nn.Module):
    """A model around another."""

    def __init__(self, net):
        super().__init__()
        self.net = net


def all_files(found, folder):
    folder.mkdir(exist_ok=True)
    write_tables(folder, found.rows, found.broken)
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize("threat", [EPS, L2(0.4), L1(1.5), L0(2)], ids=lambda t: type(t).__name__)
def test_three_ways_to_cut_the_batches_give_the_same_bytes(threat, digits, tmp_path):
    """The released suite as it is, within each norm; and chunks matter no more than batches."""
    net, data = digits(5)
    suite = QUICK if threat == EPS else shortened(QUICK, 8)
    files, stages = [], []
    for size, chunk in ((1, 512), (16, 512), (256, 512), (256, 3)):
        found = audit(net, data, Order(threat=threat, suite=suite, chunk=chunk, settings=Settings(batch_size=size)))
        files.append(all_files(found, tmp_path / f"{size}-{chunk}"))
        stages.append([replace(s, seconds=0.0) for s in found.stages])
        held_together(found)
    assert all(held == files[0] for held in files)
    assert all(s == stages[0] for s in stages)
    assert found.clean_accuracy > 0


def test_the_order_of_the_rows_does_not_matter(digits):
    net, data = digits(24)
    turned = data.take(torch.arange(23, -1, -1))
    a, b = (audit(net, d, Order(threat=EPS, suite=PLAIN)) for d in (data, turned))
    assert {k: v[::-1] for k, v in b.rows.items()} == a.rows


@pytest.mark.parametrize("chunk", [4, 512])
def test_chunks_of_wrong_rows_and_rows_that_all_fall_add_up(chunk, digits):
    net, data = digits(10)
    y = data.y.clone()
    y[:4] = (net(data.x[:4]).argmax(1) + 1) % 10
    data = replace(data, y=y)
    for threat in (Linf(1e-6), Linf(0.9)):
        found = audit(net, data, Order(threat=threat, suite=PLAIN, chunk=chunk))
        held_together(found)
        assert found.rows["status"][:4] == ["wrong_already"] * 4
        assert len(found.stages) == 4
    assert found.robust_accuracy == 0
    assert [s.entered for s in found.stages[1:]] == [0, 0, 0]
    nobody = audit(net, replace(data, y=(net(data.x).argmax(1) + 1) % 10), Order(threat=EPS, suite=PLAIN, chunk=chunk))
    assert nobody.clean_accuracy == nobody.robust_accuracy == 0
    held_together(nobody)
    assert nobody.summary()["distance"]["median"] is None


def test_a_limit_of_looks_leaves_stages_that_add_up(digits):
    net, data = digits(20)
    for size in (1, 16):
        settings = Settings(max_looks=4, batch_size=size)
        found = audit(net, data, Order(threat=Linf(0.02), suite=PLAIN, curve=False, settings=settings))
        held_together(found)
        assert found.rows["status"].count("out_of_budget") > 5
        assert max(found.rows["forwards"]) <= 4
        assert found.stages[-1].entered >= found.rows["status"].count("out_of_budget")
        assert any("ran out of looks" in w for w in found.summary()["warnings"])


@pytest.mark.parametrize("threat", [EPS, L2(0.4), L1(1.5), L0(2)], ids=lambda t: type(t).__name__)
def test_the_curve_falls_and_meets_the_robust_accuracy(threat, digits):
    net, data = digits(24)
    found = audit(net, data, Order(threat=threat, suite=PLAIN if not isinstance(threat, L0) else QUICK))
    lines = found.summary()["curve"]
    heights = [line["accuracy"] for line in lines]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] == found.clean_accuracy
    (here,) = (line for line in lines if line["eps"] == threat.eps)
    assert here["accuracy"] == found.robust_accuracy
    assert heights[-1] < found.robust_accuracy  # beyond the budget more fall
    right = len(data) - found.rows["status"].count("wrong_already")
    known = sorted(d for d in found.rows["distance"] if d is not None)
    told = found.summary()["distance"]
    assert told["censored"] == right - len(known)
    assert told["median"] == (known[-(-right // 2) - 1] if -(-right // 2) <= len(known) else None)
    for status, far in zip(found.rows["status"], found.rows["distance"], strict=True):
        assert status != "broken" or far <= threat.eps
        assert status != "robust" or far is None or far > threat.eps


def test_without_a_curve_rows_that_stand_are_censored(digits):
    net, data = digits(24)
    for order in (
        Order(threat=EPS, suite=PLAIN, curve=False),
        Order(threat=EPS, suite=Suite("s", (RandomSearch(steps=20),)), access=ScoresOnly()),
        Order(threat=Linf(PerRow(torch.full((24,), 0.08))), suite=PLAIN),
        Order(threat=Spatial(degrees=10.0), suite=Suite("s", (Draws(steps=5),))),
    ):
        found = audit(net, data, order)
        held_together(found)
        for status, size, far in zip(*(found.rows[k] for k in ("status", "size", "distance")), strict=True):
            assert far == size
            assert (far is None) == (status != "broken")
        assert found.stages[-1].attack != "smallest change"


def test_every_pass_is_in_the_books(digits):
    """With single lanes a hook on the model counts what the stages say, and the judgements beside them."""
    net, data = digits(12)

    class Counted(Wrapped):
        rows = 0

        def forward(self, z):
            Counted.rows += len(z)
            return self.net(z)

    found = audit(Counted(net), data, Order(threat=EPS, suite=PLAIN, settings=Settings(lanes=1)))
    fell = len(found.broken["row"])
    distances = sum(d is not None for d in found.rows["distance"])
    # Clean, adversarial, and both acceptances, each filled up to whole batches.
    beside = sum(-(-n // 16) * 16 for n in (12, 12, fell - found.stages[-1].broke, distances))
    cost = found.summary()["cost"]
    assert Counted.rows == cost["forwards"] + cost["checks"] + beside


class Moody(Wrapped):
    """Its answers depend on the company: in a batch whose first pixels differ it is the plain network, alone another.

    A row by itself, or with copies of itself, gets the odd classes of a shifted network.
    """

    def forward(self, z):
        logits = self.net(z)
        alone = bool((z == z[:1]).all())
        return logits.roll(1, 1) if alone else logits


def test_a_success_that_does_not_hold_in_company_is_attacked_again_and_then_stands(digits):
    net, data = digits(24)
    found = audit(Moody(net), data, Order(threat=Linf(0.02), suite=PLAIN, curve=False))
    held_together(found)
    for i, row in enumerate(found.broken["row"].tolist()):  # what counts fools the network in company
        label = data.y[data.rows == row]
        assert net(found.broken["adversarial"][i : i + 1]).argmax(1) != label


def test_successes_that_are_rejected_are_attacked_again(digits, monkeypatch):
    from importlib import import_module

    room = import_module("adamant.evaluation.audit")
    net, data = digits(24)
    plain = audit(net, data, Order(threat=EPS, suite=PLAIN, curve=False))
    rounds = []

    def strict(model, threat, x, y, out, settings):
        """At first only every other success holds, then all."""
        rounds.append((len(x), int(out.broken.sum())))
        holds = accepted(model, threat, x, y, out, settings)
        assert torch.equal(holds, out.broken)
        if len(rounds) == 1:
            holds[holds.nonzero()[::2]] = False
        return holds

    monkeypatch.setattr(room, "accepted", strict)
    found = audit(net, data, Order(threat=EPS, suite=PLAIN, curve=False))
    first = rounds[0][1]
    assert first > 4
    assert rounds[1] == (-(-first // 2), rounds[1][1])
    assert rounds[1][1] > 0
    held_together(found)
    assert sum(s.rejected for s in found.stages) == -(-first // 2)
    assert sum(found.rows["forwards"]) > sum(plain.rows["forwards"])
    assert any("did not hold when they were judged once more" in w for w in found.summary()["warnings"])
    assert found.rows["status"].count("broken") == first // 2 + rounds[1][1]

    rounds.clear()
    monkeypatch.setattr(room, "accepted", lambda *a: torch.zeros_like(strict(*a)))
    never = audit(net, data, Order(threat=EPS, suite=PLAIN, curve=False))
    assert len(rounds) == 3
    held_together(never)
    assert never.rows["status"].count("broken") == len(never.broken["row"]) == 0
    assert never.robust_accuracy == never.clean_accuracy


def test_a_lead_below_the_tolerance_breaks_nothing(digits):
    """The best other logit is cut at a hair above the label's."""
    net, data = digits(16)

    class Close(Wrapped):
        def forward(self, z):
            logits = self.net(z)
            own = self.net(self.x).argmax(1)[:1]  # of all rows the same class
            rival = (own + 1) % 10
            top = logits.gather(1, own.expand(len(z), 1))
            most = logits.masked_fill(torch.arange(10) == own, -torch.inf).amax(1, keepdim=True)
            out = (logits - 20).scatter(1, own.expand(len(z), 1), top)
            return out.scatter(1, rival.expand(len(z), 1), top + (most - top).clamp(max=self.lead))

    label = int(net(data.x).argmax(1).mode().values)
    kept = data.take(net(data.x).argmax(1) == label)
    kept = replace(kept, y=torch.full_like(kept.y, label))
    for lead, falls in ((1e-5, False), (0.5, True)):
        model = Close(net)
        model.x, model.lead = kept.x[:1], lead
        found = audit(model, kept, Order(threat=Linf(0.3), suite=PLAIN))
        held_together(found)
        assert (found.robust_accuracy < found.clean_accuracy) == falls, lead
        raw = run(PGD(steps=20), model, kept.x, Untargeted(kept.y), Linf(0.3))
        assert raw.broken.any()  # without a tolerance it is a success
        if not falls:
            none = run(PGD(steps=20), model, kept.x, Untargeted(kept.y), Linf(0.3), settings=Settings(tolerance=1e-4))
            assert not none.broken.any()


@pytest.mark.parametrize("value", [-torch.inf, torch.inf])
def test_a_class_at_infinity_does_not_hide_what_falls(value, digits):
    """A masked class has no spread: successes among the others are successes. And one that jumps to infinity wins."""
    net, data = digits(16)

    class Masked(Wrapped):
        def forward(self, z):
            logits = self.net(z)
            if value < 0:
                return torch.cat([logits, torch.full_like(logits[:, :1], value)], 1)
            jumps = (Margin()(logits, Untargeted(data.y[:1].expand(len(z)))) > 99)[:, None]
            return torch.cat([logits, torch.where(jumps, value, -99.0)], 1)

    plain, masked = (audit(m, data, Order(threat=EPS, suite=PLAIN, curve=False)) for m in (net, Masked(net)))
    assert masked.rows["status"] == plain.rows["status"]
    assert masked.robust_accuracy < masked.clean_accuracy
    assert not masked.summary()["warnings"]


class Dice(Wrapped):
    """Right nearly always, and wrong by luck in one answer of twelve."""

    def forward(self, z):
        logits = self.net(z) * 0 + 1.0 * torch.nn.functional.one_hot(self.y[:1].expand(len(z)), 10)
        return torch.where((torch.rand(len(z), 1) < 1 / 12), -logits, logits)


def test_luck_breaks_a_row_once_and_not_by_a_majority(digits):
    net, data = digits(24)
    data = data.take(torch.arange(6))
    data = replace(data, y=data.y[:1].expand(6).clone())
    model = Dice(net)
    model.y = data.y
    outs = {}
    for votes in (1, 20):
        settings = Settings(votes=votes)
        outs[votes] = run(Draws(steps=200), model, data.x, Untargeted(data.y), EPS, settings=settings)
    assert outs[1].broken.any()
    assert not outs[20].broken.any()
    assert (outs[20].status == am.Status.ROBUST).all()
    assert int(outs[20].checks.min()) >= 20
    found = audit(model, data, Order(threat=EPS, suite=Suite("d", (Draws(steps=40),)), settings=Settings(votes=20)))
    assert found.rows["status"].count("broken") == 0


def test_the_last_judgement_votes_too(digits):
    """Of a model that is fooled in two answers of three, a success must not hang on the luck of the last."""
    net, data = digits(20)

    class Often(Wrapped):
        def forward(self, z):
            own = torch.nn.functional.one_hot(data.y[:1].expand(len(z)), 10).float()
            return torch.where(torch.rand(len(z), 1) < 2 / 3, -own, own)

    y = data.y[:1].expand(20)
    out = run(Draws(steps=1), net, data.x, Untargeted(data.y), Linf(0.9))
    out = replace(out, status=torch.full_like(out.status, int(am.Status.BROKEN)))
    held = [int(accepted(Often(net), Linf(0.9), data.x, y, out, Settings(votes=v)).sum()) for v in (1, 101)]
    assert held[0] < 20
    assert held[1] == 20


@pytest.mark.parametrize(
    "bad", [{"votes": 0}, {"votes": -3}, {"tolerance": 2.0}, {"tolerance": -0.1}, {"tolerance": 1}]
)
def test_settings_that_are_none(bad):
    name = next(iter(bad))
    with pytest.raises(InputError, match=rf"Settings\({name}={bad[name]}\)"):
        Settings(**bad)


def test_an_interruption_leaves_the_model_and_a_later_audit_is_the_same(digits):
    net, data = digits(16)

    class Stops(Wrapped):
        left = 60

        def forward(self, z):
            Stops.left -= 1
            if not Stops.left:
                raise KeyboardInterrupt
            return self.net(z)

    model = Stops(net).train()
    order = Order(threat=EPS, suite=Suite("s", (), others=(Course((CosinePGD(steps=5), PGD(steps=40))),)))
    with pytest.raises(KeyboardInterrupt):
        audit(model, data, order)
    assert model.training
    again = audit(model.eval(), data, order)
    assert again.rows == audit(net, data, order).rows


def test_the_clean_look_votes_too(digits):
    """Of a model that is wrong in one answer of five nobody is wrong by most of 25; a single answer is, on some."""
    net, data = digits(24)

    class Slips(Wrapped):
        def forward(self, z):
            own = torch.nn.functional.one_hot(data.y[:1].expand(len(z)), 10).float()
            return torch.where(torch.rand(len(z), 1) < 1 / 5, -own, own)

    data = replace(data, y=data.y[:1].expand(24).clone())
    order = Order(threat=EPS, suite=Suite("d", (Draws(steps=1),)), curve=False)
    once = audit(Slips(net), data, order)
    often = audit(Slips(net), data, replace(order, settings=Settings(votes=25)))
    assert once.clean_accuracy < 1 == often.clean_accuracy
    for found in (once, often):  # what the table calls the answer is one that was given, and says what the status says
        for status, said, label in zip(*(found.rows[k] for k in ("status", "clean_prediction", "label")), strict=True):
            assert said == label or status == "wrong_already"
    wrong = audit(Slips(net), replace(data, y=(data.y + 1) % 10), replace(order, settings=Settings(votes=25)))
    assert wrong.clean_accuracy == 0
    assert int(data.y[0]) in wrong.rows["clean_prediction"]
    assert int(data.y[0] + 1) % 10 not in wrong.rows["clean_prediction"]


@pytest.mark.parametrize("curve", [False, True])
def test_a_limit_of_looks_is_one_for_the_whole_audit(curve, digits, monkeypatch):
    """Rows that are attacked again, and the search for the smallest change, go on with what is left."""
    from importlib import import_module

    room = import_module("adamant.evaluation.audit")
    net, data = digits(12)
    monkeypatch.setattr(room, "accepted", lambda *a: torch.zeros_like(accepted(*a)))
    seen = {}
    for most in (12, 40, 100_000):
        order = Order(threat=EPS, suite=PLAIN, curve=curve, settings=Settings(max_looks=most), chunk=7)
        found = audit(net, data, order)
        assert max(found.rows["forwards"]) <= most
        seen[most] = found.rows
        held_together(found)
    free = audit(net, data, Order(threat=EPS, suite=PLAIN, curve=curve, chunk=7))
    assert free.rows == seen[100_000]
    assert max(seen[40]["forwards"]) > 12  # more than one run of an attack of few steps
    small = replace(order, settings=Settings(max_looks=40, batch_size=1))
    assert audit(net, data, small).rows == seen[40]
