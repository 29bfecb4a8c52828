"""How much a model shows, and that everybody keeps to it: attacks, audits, the doctor, training, transfer."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import adamant as am
from adamant.access import CATALOGUE, Sight, plain, sight
from adamant.adversary import FITTING
from adamant.attacks import catalogue
from adamant.calling import Caller, Settings
from adamant.data import DataSet
from adamant.engine import run
from adamant.errors import AccessError, InputError, ModelError
from adamant.evaluation import LABELS, QUICK, SCORES, STANDARD, Order, Suite, audit, default_suite, identify, transfer
from adamant.evaluation.doctor import examine
from adamant.goals import Untargeted
from adamant.models import BlackBox, LabelsOf, Normalised, Scores
from adamant.training import recipes
from adamant.variety import Varied

X = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
NET = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).requires_grad_(False)
with torch.no_grad():
    NET[1].weight.copy_(torch.randn(3, 16, generator=torch.Generator().manual_seed(1)))
    NET[1].bias.copy_(-NET[1].weight.sum(1) / 2)
Y = NET(X).argmax(1)
DATA = DataSet(x=X, y=Y, classes=("a", "b", "c"), name="toy", split="test", rows=torch.arange(12))


def scores():
    return BlackBox(NET, 3, output=Scores(), tensors=True)


def labels():
    return BlackBox(lambda x: NET(x).argmax(1), output=LabelsOf((0, 1, 2)), tensors=True)


class Shy(nn.Module):
    """A module of one's own that says what it shows."""

    shows = Sight.SCORES

    def forward(self, x):
        return NET(x).detach()


def test_a_model_shows_the_least_of_what_its_parts_show():
    assert sight(NET) == Sight.GRADIENT
    assert sight(Shy()) == sight(nn.Sequential(NET, Normalised(Shy(), (0.0,), (1.0,)))) == Sight.SCORES
    assert sight(nn.ModuleList([Shy(), labels()])) == Sight.LABELS
    assert sight(nn.DataParallel(Shy())) == Sight.SCORES
    assert [plain(m) for m in (NET, scores(), labels())] == [am.WhiteBox(), am.ScoresOnly(), am.LabelsOnly()]


def test_an_access_says_what_it_takes():
    takes = {a.__name__: a.takes.name for a in (*CATALOGUE, Varied)}
    assert takes == {
        "WhiteBox": "GRADIENT", "EOT": "GRADIENT", "Varied": "GRADIENT", "NES": "SCORES", "SPSA": "SCORES",
        "ScoresOnly": "SCORES", "LabelsOnly": "LABELS",
    }  # fmt: skip


def test_the_attacks_that_a_refusal_names_are_those_of_the_catalogue():
    for needs, names in FITTING.items():
        members = [e.name for e in catalogue.CATALOGUE if e.needs == needs.name.lower() and e.name != "SameChange"]
        assert sorted(names) == sorted(n for n in members if n not in ("Nearest", "Insist"))


@pytest.mark.parametrize(
    ("model", "attack", "access", "why"),
    [
        (scores, am.PGD(), None, r"PGD needs the gradient and this model shows the scores only: .*access=NES\(...\)"),
        (scores, am.Union(am.Square(), am.PGD()), None, "PGD needs the gradient and this model shows the scores"),
        (scores, am.PGD(), am.WhiteBox(), r"WhiteBox takes the gradient .* or give ScoresOnly\(\), or use access=NES"),
        (scores, am.PGD(), am.EOT(3), "EOT takes the gradient"),
        (scores, am.PGD(), Varied(n=2), "Varied takes the gradient"),
        (labels, am.PGD(), None, "shows the predicted label only: take another attack. With labels alone work HopSki"),
        (labels, am.Square(), None, "Square needs the scores and this model shows the predicted label only"),
        (labels, am.PGD(), am.NES(), r"NES takes the scores and .* or give LabelsOnly\(\)\. With"),
        (lambda: NET, am.PGD(), am.ScoresOnly(), "PGD needs the gradient and ScoresOnly gives the scores: .*NES"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_list_of_what_does(model, attack, access, why):
    with pytest.raises(AccessError, match=why) as refused:
        am.attack(attack, model(), X, Y, am.Linf(0.1), access=access)
    said = str(refused.value)
    assert all(name in said for name in FITTING[Sight.LABELS])
    assert ("SparseRS" in said) == ("labels alone" not in said)
    assert "adamant attacks --fits" in said


def test_without_an_access_the_strongest_that_the_model_allows_is_taken():
    seen = []

    @dataclass(frozen=True)
    class Curious:
        needs = Sight.LABELS
        steps = 0
        loss = am.Margin()

        def init(self, p):
            seen.append(p.access)
            return am.Draws(steps=1).init(p)

        def step(self, p, s, seen, t):
            return s

    for model in (NET, scores(), labels()):
        run(Curious(), model, X, Untargeted(Y), am.Linf(0.1))
    assert seen == [am.WhiteBox(), am.ScoresOnly(), am.LabelsOnly()]


def test_labels_and_scores_are_enough_for_what_needs_no_more():
    sure = am.attack(am.PGD(steps=20), NET, X, Y, am.Linf(0.3)).broken
    assert sure.sum() > 3
    by_scores = am.attack(am.Square(steps=200), scores(), X, Y, am.Linf(0.3))
    by_labels = am.attack(am.RayS(steps=300), labels(), X, Y, am.Linf(0.3))
    estimated = am.attack(am.PGD(steps=20), scores(), X, Y, am.Linf(0.3), access=am.NES(n=40, sigma=0.01))
    for out in (by_scores, by_labels, estimated):
        assert out.broken.sum() >= 0.75 * sure.sum()
        assert (NET(out.x_adv[out.broken]).argmax(1) != Y[out.broken]).all()
        assert not out.backwards.any()
    plainly = am.attack(am.Square(steps=200), NET, X, Y, am.Linf(0.3), access=am.ScoresOnly())
    assert torch.equal(plainly.status, by_scores.status)


def test_who_counts_queries_has_no_lanes():
    assert Caller(scores(), Settings()).settings == Settings(lanes=1)
    assert Caller(nn.Sequential(scores()), Settings(lanes=4)).settings.lanes == 1
    assert Caller(Shy(), Settings()).settings == Settings()


@pytest.mark.parametrize(("make", "suite"), [(scores, SCORES), (labels, LABELS), (lambda: NET, STANDARD)])
def test_an_audit_takes_the_suite_for_what_is_shown(make, suite):
    assert default_suite(plain(make())) is suite
    quick = Suite("short", (am.Draws(steps=3),))
    found = am.audit(make(), DATA, am.Linf(0.05), suite=quick)
    assert found.order.access == plain(make())
    assert found.summary()["access"] == repr(plain(make()))


def test_without_a_suite_an_audit_runs_to_the_end(tmp_path):
    found = am.audit(labels(), DATA.take(torch.arange(4)), am.Linf(0.2), out=tmp_path / "a")
    assert found.order.suite is LABELS
    assert {s.needs for s in found.stages} == {Sight.LABELS}
    page = (tmp_path / "a" / "report.html").read_text()
    assert "Seen of the model" in page
    assert "LabelsOnly()" in page
    assert "shows labels only: nothing here saw a score or a gradient" in page


@pytest.mark.parametrize("make", [scores, labels])
def test_a_suite_that_needs_more_is_refused(make):
    own = {scores: "scores_v1, or give access=NES", labels: "labels_v1."}[make]
    with pytest.raises(InputError, match=f"standard_v1 needs gradients and this model shows .* takes {own}"):
        am.audit(make(), DATA, am.Linf(0.1), suite=STANDARD)
    with pytest.raises(AccessError, match="PGD needs the gradient"):
        am.audit(make(), DATA, am.Linf(0.1), suite=Suite("one", (am.PGD(),)))
    if make is labels:
        with pytest.raises(InputError, match="scores_v1 needs scores and this model shows labels only"):
            am.audit(labels(), DATA, am.Linf(0.1), suite=SCORES)


def test_with_an_estimate_a_suite_of_gradients_runs():
    few = DATA.take(torch.arange(2))
    found = am.audit(scores(), few, am.Linf(0.05), suite=QUICK, access=am.NES(n=2, sigma=0.01))
    assert found.order.access == am.NES(n=2, sigma=0.01)
    assert not any(s.backwards for s in found.stages)


def test_models_without_weights_are_told_apart_by_their_answers():
    order = Order(threat=am.Linf(0.1), suite=SCORES, access=am.ScoresOnly())
    turned = BlackBox(lambda x: -NET(x), 3, output=Scores(), tensors=True)
    assert identify(order, scores(), DATA) == identify(order, scores(), DATA) != identify(order, turned, DATA)


def test_where_queries_have_a_budget_chunks_are_small():
    class Metered(Shy):
        queries, budget = 0, 10_000

    many = DataSet(
        x=X.repeat(4, 1, 1, 1), y=Y.repeat(4), classes=DATA.classes, name="m", split="t", rows=torch.arange(48)
    )
    done = []
    order = Order(
        threat=am.Linf(0.05), suite=Suite("one", (am.Draws(steps=2),)), access=am.ScoresOnly(),
        watch=lambda i, n, _: done.append(i),
    )  # fmt: skip
    audit(Metered(), many, order)
    assert {16, 32, 48} <= set(done)
    assert "chunks of 16" in identify(order, Metered(), many)
    assert "chunks of 512" in identify(order, Shy(), many)


def test_it_is_not_trained():
    with pytest.raises(ModelError, match="shows scores only and its weights get no gradient"):
        am.train(Shy(), DATA, recipes.standard(), am.Linf(0.1), validation=DATA)


def test_it_can_be_a_target_of_transfer_and_a_source_only_by_estimates():
    goal, box = Untargeted(Y), scores()
    found = transfer(am.PGD(steps=5), {"net": NET}, {"box": box}, X, goal, am.Linf(0.3))
    assert found.rate["net"]["box"]["accuracy"] > 0.2
    with pytest.raises(AccessError, match="this model shows the scores only"):
        transfer(am.PGD(steps=5), {"box": box}, {"net": NET}, X, goal, am.Linf(0.3))
    seen = am.NES(n=40, sigma=0.01)
    back = transfer(am.PGD(steps=5), {"box": box}, {"net": NET}, X, goal, am.Linf(0.3), access=seen)
    assert back.rate["box"]["net"]["accuracy"] > 0.2


def test_the_doctor_leaves_out_what_needs_gradients():
    found = examine(scores(), DATA, am.Linf(0.1))
    skipped = {f.id for f in found.findings if f.measured == "this model shows no gradient"}
    assert skipped >= {"D4", "D5", "D6", "D8", "D9", "D15", "D19"}
    assert found["D2"].verdict.name == found["D12"].verdict.name == "PASS"
    assert "ScoresOnly sees no gradient" in examine(NET, DATA, am.Linf(0.1), access=am.ScoresOnly())["D4"].measured

    class Remembering(Shy):
        remembers = True

    assert examine(Remembering(), DATA, am.Linf(0.1))["D3"].measured == "what was asked before is answered from memory"
