"""A model behind an HTTP address, attacked within a budget of queries; here the service is a thread of this program."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from sklearn.linear_model import LogisticRegression

import adamant as am
from adamant.engine import Interrupted
from adamant.models import Endpoint

train, test = am.load_data("digits", split="train"), am.load_data("digits", split="test", limit=40)
estimator = LogisticRegression(max_iter=300).fit(train.x.flatten(1).numpy(), train.y.numpy())


class Service(BaseHTTPRequestHandler):
    """Answers {"inputs": [...]} by {"outputs": [...]}: the probabilities of each row."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]
        rows = np.array(asked, dtype=np.float32).reshape(len(asked), -1)
        said = json.dumps({"outputs": estimator.predict_proba(rows).tolist()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/predict"

model = Endpoint(url)
out = am.attack(am.RandomSearch(steps=100), model, test.x, test.y, am.Linf(0.1))
print(
    f"{out.robust_accuracy:.1%} stand; {int((out.forwards + out.checks).sum()):,} forwards, {model.queries:,} rows sent"
)

# A hard limit: when it is spent the run ends, and what is finished is in the outcome.
settings = am.Settings(batch_size=10)
try:
    am.attack(am.RandomSearch(steps=100), Endpoint(url, budget=1500), test.x, test.y, am.Linf(0.1), settings=settings)
except Interrupted as stop:
    short = int((stop.outcome.status == am.Status.OUT_OF_BUDGET).sum())
    print(f"{len(stop.outcome.status)} of {len(test)} rows were begun, {short} ran out of queries")

server.shutdown()
server.server_close()
