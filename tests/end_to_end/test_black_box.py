"""Models that show scores or labels only, from the command line: attack, audit, compare, doctor, and a service."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import safetensors.torch
import torch

from .conftest import command

MODELS = '''
"""Models that show less than their gradient."""
import odd_models
from adamant.models import BlackBox, LabelsOf, Scores

net = odd_models.Good().requires_grad_(False)


def scores():
    return BlackBox(net, 10, output=Scores(), tensors=True)


def labels():
    return BlackBox(lambda x: net(x).argmax(1), output=LabelsOf(tuple(range(10))), tensors=True)
'''


@pytest.fixture
def models(here, monkeypatch):
    (here / "shown_models.py").write_text(MODELS)
    monkeypatch.delitem(__import__("sys").modules, "shown_models", raising=False)
    return here


@pytest.fixture
def service(shelf):
    """The address of a server in a thread that scores as odd_models:Good does, and counts what it is sent."""
    import odd_models  # pyright: ignore[reportMissingImports]

    net, sent = odd_models.Good(), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]
            sent.extend(rows)
            with torch.no_grad():
                said = json.dumps({"outputs": net(torch.tensor(rows)).softmax(1).tolist()}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/predict", sent
    server.shutdown()
    server.server_close()
    thread.join()


def words(model, shelf, *more, threat="linf:0.05"):
    return (model, "--data", shelf / "good.npz", "--threat", threat, *more, "--quiet")


def test_an_audit_takes_what_fits_and_says_so(models, shelf):
    for model, suite, access in (("labels", "labels_v1", "LabelsOnly()"), ("scores", "scores_v1", "ScoresOnly()")):
        said = command("audit", *words(f"shown_models:{model}", shelf, "--limit", 2, threat="linf:0.3"), "--out", model)
        assert said.code == 0, said.err
        result = json.loads((models / model / "result.json").read_text())
        assert (result["suite"], result["access"]) == (suite, access)
        assert result["cost"]["backwards"] == 0
        assert f"shows {suite.partition('_')[0]}" in result["model"]["notes"][0]
        assert access in (models / model / "report.html").read_text()
        config = (models / model / "config.toml").read_text()
        assert f'suite = "{suite}"' in config
        assert f'access = "{access}"' in config
        skipped = [d["id"] for d in result["diagnostics"] if d["measured"] == "this model shows no gradient"]
        assert {"D4", "D6", "D9"} <= set(skipped)
    rows = (models / "labels" / "rows.parquet").read_bytes()
    again = command("audit", "--config", "labels", "--out", "again", "--quiet")
    assert again.code == 0, again.err
    assert (models / "again" / "rows.parquet").read_bytes() == rows
    both = command("compare", "labels", "scores")
    assert both.code == 0, both.err
    assert "The access is not the same (LabelsOnly() in shown_models:labels" in both.out


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (("audit", "shown_models:scores", "--suite", "standard"), "which takes scores_v1, or give access=NES"),
        (("audit", "shown_models:labels", "--suite", "quick"), "leave the suite out, which takes labels_v1."),
        (("audit", "shown_models:scores", "--suite", "PGD(steps=3)"), "PGD needs the gradient and this model shows"),
        (("attack", "shown_models:scores"), "With scores alone work Square, SparseRS"),
        (("attack", "shown_models:labels", "--attack", "Square()"), "With labels alone work HopSkipJump, SignOPT"),
        (("attack", "shown_models:labels", "--access", "NES(n=4)"), "NES takes the scores and this model shows"),
        (("doctor", "shown_models:labels", "--access", "ScoresOnly()"), "ScoresOnly takes the scores"),
    ],
)
def test_what_does_not_fit_is_refused(models, shelf, line, sentence):
    said = command(*line[:1], *words(line[1], shelf, *line[2:]))
    assert sentence in said.sentence


def test_what_has_no_gradient_is_neither_trained_nor_a_source(models, shelf):
    rest = ("--threat", "linf:0.05", "--quiet")
    said = command("train", "shown_models:scores", "--data", "digits", *rest)
    assert "shows scores only and its weights get no gradient" in said.sentence
    said = command("transfer", "shown_models:scores", "odd_models:Good", "--data", shelf / "good.npz", *rest[:2])
    assert "MIFGSM needs the gradient and this model shows the scores only" in said.sentence


def test_an_attack_with_estimated_gradients_and_one_by_labels(models, shelf):
    for model, more in (
        ("scores", ("--attack", "PGD(steps=9)", "--access", "NES(n=20, sigma=0.01)")),
        ("labels", ("--attack", "RayS(steps=200)")),
    ):
        said = command("attack", *words(f"shown_models:{model}", shelf, *more), "--json")
        assert said.code == 0, said.err
        document = json.loads(said.out)
        assert document["statuses"]["broken"] > 6
        assert document["backwards"] == 0


def test_the_doctor_examines_what_can_be_seen(models, shelf):
    said = command("doctor", *words("shown_models:labels", shelf), "--json")
    assert said.code == 0, said.err
    found = {f["id"]: f for f in json.loads(said.out)["findings"]}
    assert found["D12"]["verdict"] == "PASS"
    assert found["D4"]["verdict"] == found["D8"]["verdict"] == "SKIPPED"


def test_the_attacks_that_fit_are_listed():
    names = {line["name"]: line["needs"] for line in json.loads(command("attacks", "--fits", "scores", "--json").out)}
    assert set(names.values()) == {"scores", "labels"}
    assert "RayS" in names
    assert "PGD" not in names
    assert "choose among labels, scores, gradient" in command("attacks", "--fits", "all").sentence


def test_a_service_is_audited_within_its_budget_and_again_from_where_it_was(service, here, shelf):
    url, sent = service
    line = words(f"Endpoint('{url}', budget=300)", shelf, "--suite", "RandomSearch(steps=40)", "--no-doctor")
    said = command("audit", *line, "--out", "a")
    assert said.code == 130
    assert "adamant: stopped: The budget of 300 queries is spent" in said.err
    assert "; 16 of 24 rows are through. What was finished is kept" in said.err or "; 0 of 24" in said.err
    assert len(sent) <= 300
    kept = sorted(p.name for p in (here / "a" / "parts").glob("*"))
    line = words(f"Endpoint('{url}', budget=3000)", shelf, "--suite", "RandomSearch(steps=40)", "--no-doctor")
    said = command("audit", *line, "--out", "a", "--resume")
    assert said.code == 0, said.err
    whole = command("audit", *words(url, shelf, "--suite", "RandomSearch(steps=40)"), "--out", "b", "--chunk", 16)
    assert whole.code == 0, whole.err
    assert (here / "a" / "rows.parquet").read_bytes() == (here / "b" / "rows.parquet").read_bytes()
    assert len(kept) <= 1


def test_an_attack_on_a_service_keeps_what_it_has_when_the_budget_is_spent(service, here, shelf):
    url, sent = service
    line = words(f"Endpoint('{url}', budget=400)", shelf, "--attack", "RandomSearch(steps=90)")
    said = command("attack", *line, "--out", "x")
    assert said.code == 130, said.err
    assert "Stopped: The budget of 400 queries is spent" in said.out
    assert "24 of 24 rows were begun, and" in said.out
    assert len(sent) <= 400
    document = json.loads((here / "x" / "result.json").read_text())
    assert document["statuses"]["out_of_budget"] > 0
    assert document["statuses"]["broken"] > 0
    kept = safetensors.torch.load_file(here / "x" / "adversarial.safetensors")
    assert len(kept["row"]) == len(kept["status"]) == 24


def test_a_service_that_is_not_there_is_a_sentence(here, shelf):
    said = command(
        "attack", *words("Endpoint('http://127.0.0.1:9', patience=Patience(retries=0))", shelf), "--attack", "Draws()"
    )
    assert "http://127.0.0.1:9 did not answer in 1 attempts" in said.sentence
    np.savez(here / "kept.npz", x=1)
    assert "can run any code" in command("audit", *words("model.joblib", shelf)).sentence
