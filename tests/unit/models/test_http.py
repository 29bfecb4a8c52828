"""Endpoints, asked over a real connection: a server in a thread that answers, fails, dawdles and limits."""

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

import adamant as am
from adamant.access import Sight, sight
from adamant.engine import Interrupted, perturb, run
from adamant.errors import InputError, ModelError, Spent
from adamant.goals import Untargeted
from adamant.models import Endpoint, Json, LabelsOf, Patience, Scores, as_logits
from adamant.random import Rng

X = torch.rand(8, 1, 2, 3, generator=torch.Generator().manual_seed(0))
WEIGHTS = np.random.default_rng(1).normal(size=(6, 3))
QUICK = Patience(timeout=0.3, retries=3, wait=0.01)


def scores(rows):
    return ((np.array(rows, dtype=np.float64).reshape(len(rows), -1) - 0.5) @ WEIGHTS).tolist()


def expected(x):
    return torch.tensor(scores(x.numpy()), dtype=torch.float64)


class Service:
    """What the server does with its next requests, and what came in."""

    def __init__(self):
        self.plan, self.bodies, self.headers, self.times = [], [], [], []
        self.answer = lambda body: {"outputs": scores(body["inputs"])}

    @property
    def rows(self):
        return sum(len(next(iter(b.values()))) for b in self.bodies)


@pytest.fixture
def service():
    held = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            held.bodies.append(body)
            held.headers.append(dict(self.headers))
            held.times.append(time.monotonic())
            act = held.plan.pop(0) if held.plan else 200
            if act == "drop":
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if act == "dawdle":
                time.sleep(0.6)
                act = 200
            code, extra = act if isinstance(act, tuple) else (act, {})
            said = held.answer(body) if code == 200 else "too much"
            text = said if isinstance(said, bytes) else json.dumps(said).encode()
            try:
                self.send_response(code)
                for name, value in extra.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
            except OSError:  # the client has gone
                pass

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    held.url = f"http://127.0.0.1:{server.server_port}/predict"
    yield held
    server.shutdown()
    server.server_close()
    thread.join()


def endpoint(service, **settings):
    return Endpoint(service.url, **{"output": Scores(), "patience": QUICK, **settings})


def test_rows_go_out_as_json_in_chunks_and_scores_come_back(service):
    model = endpoint(service, chunk=3)
    logits = model(X)
    assert torch.allclose(logits, expected(X))
    assert [len(b["inputs"]) for b in service.bodies] == [3, 3, 2]
    assert service.bodies[0]["inputs"][1] == X[1].tolist()
    assert service.headers[0]["Content-Type"] == "application/json"
    assert model.queries == 8
    assert sight(model) == Sight.SCORES


def test_the_same_input_is_never_asked_twice(service):
    model = endpoint(service)
    twice = model(torch.cat([X, X[:3], X[:1]]))
    assert torch.equal(twice[8:], torch.cat([twice[:3], twice[:1]]))
    assert torch.equal(model(X.flip(0)), twice[:8].flip(0))
    assert service.rows == model.queries == 8
    model(X.double())
    assert model.queries == 16  # other numbers, by their bytes
    assert model(X[:0]).shape[0] == 0


@pytest.mark.parametrize("trouble", [[503], [429, 500, 502], ["drop"], ["dawdle"], [(429, {"Retry-After": "soon"})]])
def test_a_busy_service_is_asked_again(service, trouble):
    service.plan = list(trouble)
    model = endpoint(service)
    assert torch.allclose(model(X), expected(X))
    assert len(service.bodies) == len(trouble) + 1
    assert model.queries == 8 * len(service.bodies)


def test_pauses_double_and_the_service_may_ask_for_longer_ones(service):
    service.plan = [503, 503, (429, {"Retry-After": "0.4"})]
    endpoint(service, patience=Patience(timeout=2, retries=3, wait=0.05))(X)
    pauses = np.diff(service.times)
    assert pauses[0] >= 0.05
    assert pauses[1] >= 0.1
    assert pauses[2] >= 0.4


def test_patience_ends(service):
    service.plan = [503] * 9
    with pytest.raises(ModelError, match=r"/predict did not answer in 4 attempts; the last said: 503 .*too much"):
        endpoint(service)(X)
    assert len(service.bodies) == 4
    dead = Endpoint("http://127.0.0.1:9/none", patience=Patience(timeout=0.2, retries=1, wait=0.01))
    with pytest.raises(ModelError, match="did not answer in 2 attempts"):
        dead(X)


@pytest.mark.parametrize("code", [400, 401, 404])
def test_a_refusal_is_final(service, code):
    service.plan = [code]
    with pytest.raises(ModelError, match=rf"answered {code} .* to 8 rows of shape \(1, 2, 3\): check the address"):
        endpoint(service)(X)
    assert len(service.bodies) == 1


def test_requests_keep_to_the_rate(service):
    endpoint(service, chunk=2, rate=10)(X)
    assert np.diff(service.times).min() > 0.08


def test_no_more_rows_are_sent_than_the_budget_holds(service):
    model = endpoint(service, budget=10, chunk=4)
    model(X)
    model(X)  # remembered
    with pytest.raises(Spent, match=r"budget of 10 queries is spent \(8 rows sent to http://127.0.0.1.*/predict\)"):
        model(X + 0.01)
    assert service.rows == model.queries == 8
    service.plan = [503] * 9
    again = endpoint(service, budget=20)
    with pytest.raises(Spent):  # what is sent again counts again
        again(X)
    assert again.queries == 16


def test_an_answer_of_another_form_is_refused_with_words(service):
    for said, why in (
        ({"predictions": []}, "no 'outputs'"),
        (b"<html>", "which is not JSON"),
        ({"outputs": [[1, 2]]}, r"shape \(1, 2\) for 8 rows"),
    ):
        service.answer = lambda body, said=said: said
        with pytest.raises(ModelError, match=why):
            endpoint(service)(X)


def test_other_forms_and_labels(service, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sesame")
    service.answer = lambda body: {"predictions": scores(body["instances"])}
    model = endpoint(service, form=Json("instances", "predictions", secret="SOME_KEY"))
    assert torch.allclose(model(X), expected(X))
    assert service.headers[0]["Authorization"] == "Bearer sesame"
    assert "sesame" not in repr(model.form)
    service.answer = lambda body: [["a", "b", "c"][int(np.argmax(s))] for s in scores(body["inputs"])]
    labels = Endpoint(service.url, output=LabelsOf(("a", "b", "c")))
    assert torch.equal(labels(X).argmax(1), model(X).argmax(1))
    assert sight(labels) == Sight.LABELS
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(InputError, match="variable SOME_KEY is empty"):
        Endpoint(service.url, form=Json(secret="SOME_KEY"))


class Lines:
    """A form of one's own: numbers with blanks between."""

    def headers(self):
        return {"Content-Type": "text/plain"}

    def encode(self, x):
        return json.dumps({"inputs": x.reshape(len(x), -1).tolist()}).encode()

    def decode(self, body):
        return np.array([[float(v) for v in line.split()] for line in body.decode().splitlines()])


def test_a_form_of_ones_own(service):
    service.answer = lambda body: "\n".join(" ".join(map(repr, s)) for s in scores(body["inputs"])).encode()
    assert torch.allclose(endpoint(service, form=Lines())(X), expected(X))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "host/x", "http://"])
def test_only_http_is_spoken(url):
    with pytest.raises(InputError, match="no address of a service"):
        Endpoint(url)


@pytest.mark.parametrize("settings", [{"chunk": 0}, {"budget": 0}, {"rate": 0.0}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(InputError, match="numbers above zero"):
        Endpoint("http://host/x", **settings)


def test_an_address_is_the_name_of_a_model_and_settings_may_stand_around_it(service):
    assert am.load_model(service.url).url == service.url
    settings = "output=Scores(), budget=50, form=Json(inputs='rows'), patience=Patience(retries=1)"
    model = am.load_model(f"Endpoint('{service.url}', {settings})")
    assert (model.budget, model.form, model.patience.retries) == (50, Json(inputs="rows"), 1)
    with pytest.raises(InputError, match="There is no model named 'Jsn'"):
        am.load_model("Endpoint('http://host', form=Jsn())")


def labels_of(x):
    return torch.tensor(scores(x.numpy())).argmax(1)


def test_an_attack_asks_no_more_than_the_books_hold_and_judging_costs_nothing(service):
    model = endpoint(service)
    out = run(am.RandomSearch(steps=20), model, X, Untargeted(labels_of(X)), am.Linf(0.3))
    assert out.broken.any()
    assert service.rows == model.queries <= int((out.forwards + out.checks).sum())


@pytest.mark.parametrize("attack", [am.RandomSearch(steps=60), am.Union(am.Draws(steps=9), am.Square(steps=50))])
def test_when_the_budget_is_spent_what_is_finished_is_kept(service, attack):
    x = torch.rand(16, 1, 2, 3, generator=torch.Generator().manual_seed(1))
    y = labels_of(x)
    whole = run(attack, endpoint(service), x, Untargeted(y), am.Linf(0.06), settings=am.Settings(batch_size=4))
    assert whole.broken.any()
    assert not whole.broken.all()
    for budget in (70, 200):
        model = endpoint(service, budget=budget)
        with pytest.raises(Interrupted, match=f"budget of {budget} queries is spent") as stop:
            run(attack, model, x, Untargeted(y), am.Linf(0.06), settings=am.Settings(batch_size=4))
        part = stop.value.outcome
        assert model.queries <= budget
        n = len(part.status)
        assert 0 < n < 16
        assert n % 4 == 0
        last = part.status[-4:]
        assert (part.status == am.Status.OUT_OF_BUDGET).any()
        assert not (part.status[:-4] == am.Status.OUT_OF_BUDGET).any()
        assert torch.equal(part.status[:-4], whole.status[: n - 4])
        fell = last == am.Status.BROKEN
        assert torch.equal(part.x_adv[-4:][fell], whole.x_adv[n - 4 : n][fell])
        assert (part.forwards[-4:] <= whole.forwards[n - 4 : n]).all()


def test_of_the_smallest_change_what_was_found_is_kept_when_the_budget_is_spent(service):
    y = labels_of(X)
    model = endpoint(service, budget=600)
    with pytest.raises(Interrupted) as stop:
        run(am.HopSkipJump(steps=30), model, X, Untargeted(y), am.L2(), settings=am.Settings(batch_size=8))
    part = stop.value.outcome
    assert part.broken.any()
    assert (labels_of(part.x_adv[part.broken]) != y[part.broken]).all()
    assert set(part.status.tolist()) <= {am.Status.BROKEN, am.Status.OUT_OF_BUDGET}


def test_a_budget_too_small_for_the_clean_look_leaves_nothing(service):
    with pytest.raises(Interrupted, match="budget of 3 queries") as stop:
        run(am.RandomSearch(), endpoint(service, budget=3), X, Untargeted(labels_of(X)), am.Linf(0.1))
    assert stop.value.outcome is None


def test_an_estimated_gradient_makes_examples_that_transfer(service):
    model, y = endpoint(service), labels_of(X)
    before = model(X)
    seen = am.NES(n=20, sigma=0.01)
    z = perturb(am.PGD(steps=10), model, X, Untargeted(y), am.Linf(0.1), rng=Rng.of(0, 8), access=seen)
    margin = am.Margin()
    assert (margin(model(z), Untargeted(y)) - margin(before, Untargeted(y))).mean() > 0.1
    with pytest.raises(am.AdamantError, match="PGD needs the gradient and this model shows the scores only"):
        perturb(am.PGD(steps=3), model, X, Untargeted(y), am.Linf(0.1), rng=Rng.of(0, 8))


def test_the_probe_is_not_asked_again(service):
    model = endpoint(service)
    as_logits(model, X)
    assert model.queries == 8
    model(X)
    assert model.queries == 8
