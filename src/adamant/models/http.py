"""A model behind an HTTP address: asked politely, never twice the same, and never beyond its budget."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Protocol, final, runtime_checkable
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
import torch
from torch import Tensor, nn

from adamant._types import Logits
from adamant.access import Sight
from adamant.errors import InputError, ModelError, Spent
from adamant.models.ask import Ask
from adamant.models.scores import LabelsOf, Output, Probabilities, Scores
from adamant.values import read

_LONGEST = 60.0  # seconds between two attempts
_BUSY = (408, 425, 429)  # and all from 500 on: to be asked again


@runtime_checkable
class Form(Protocol):
    """How a batch becomes the body of a request, and an answer becomes scores or labels."""

    def headers(self) -> Mapping[str, str]: ...
    def encode(self, x: np.ndarray[Any, Any]) -> bytes: ...
    def decode(self, body: bytes) -> Any: ...


@final
@dataclass(frozen=True)
class Json:
    """`{"inputs": [...]}`, one nested list of numbers for each row, answered by `{"outputs": [...]}` or a bare list.

    `Json("instances", "predictions")` speaks to TensorFlow Serving. `secret` is the name of an environment variable:
    what it holds is sent as `Authorization: Bearer ...`, and is written nowhere.
    """

    inputs: str = "inputs"
    outputs: str = "outputs"
    secret: str = ""

    def headers(self) -> Mapping[str, str]:
        """What goes with each request."""
        held = {"Content-Type": "application/json", "Accept": "application/json"}
        if not self.secret:
            return held
        if not os.environ.get(self.secret):
            raise InputError(f"The environment variable {self.secret} is empty: it should hold the key of the service.")
        return {**held, "Authorization": f"Bearer {os.environ[self.secret]}"}

    def encode(self, x: np.ndarray[Any, Any]) -> bytes:
        """The body that asks."""
        return json.dumps({self.inputs: x.tolist()}).encode()

    def decode(self, body: bytes) -> Any:
        """The answers, row by row."""
        try:
            said = json.loads(body)
        except ValueError as error:
            raise ModelError(f"The service answered {_some(body)}, which is not JSON ({error}).") from error
        if isinstance(said, dict):
            if self.outputs not in said:
                raise ModelError(
                    f"The service's answer has no {self.outputs!r} ({_some(body)}): name the key that holds the "
                    f"outputs, Json({self.inputs!r}, ...)."
                )
            return said[self.outputs]
        return said


@final
@dataclass(frozen=True)
class Patience:
    """How long an answer may take, and how often it is asked for again, with pauses that double; all in seconds."""

    timeout: float = 30.0
    retries: int = 5
    wait: float = 0.5


class Endpoint(nn.Module):
    """A service as a model that shows scores or labels only.

    Rows (n *d) are sent by POST, at most `chunk` in a request and `rate` requests in a second. A service that is busy
    (429, 5xx), slow, or cuts the line is asked again. No input is sent twice: answers are remembered, so that
    `queries`, the rows sent, can be fewer than the forwards in the books. With a `budget` no more rows are ever sent
    (one that has to be sent again counts again): then the run ends as with Ctrl-C, and what is finished is kept.
    Raises `InputError` for settings that make no sense, `ModelError` when the service refuses or makes no sense.
    """

    def __init__(
        self,
        url: str,
        classes: int | None = None,
        *,
        output: Output | None = None,
        budget: int | None = None,
        chunk: int = 64,
        rate: float | None = None,
        form: Form | None = None,
        patience: Patience | None = None,
    ) -> None:
        super().__init__()
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{url!r} is no address of a service: give one that begins with http:// or https://.")
        if chunk < 1 or (budget is not None and budget < 1) or (rate is not None and not rate > 0):
            raise InputError(f"chunk is {chunk}, budget {budget} and rate {rate}: give numbers above zero.")
        self.url, self.where = url, f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self.output: Output = output or Probabilities()
        self.classes, self.budget, self.chunk, self.rate = classes, budget, chunk, rate
        self.form: Form = form or Json()
        self.patience = patience or Patience()
        self.form.headers()  # says at once that a key is missing
        self.queries, self.remembers = 0, True
        self._known: dict[bytes, Tensor] = {}
        self._last = -float("inf")  # when the last request was sent

    @property
    def shows(self) -> Sight:
        """Scores or labels, by what the service answers."""
        return self.output.shows

    def forward(self, x: Tensor) -> Logits:
        """Logits (n k) of x (n *d)."""
        if not len(x):
            return x.new_zeros(0, self.classes or 2)
        rows = x.detach().cpu().contiguous()
        keys = [hashlib.sha256(row.numpy().tobytes()).digest() for row in rows]
        new = list({key: i for i, key in reversed([*enumerate(keys)]) if key not in self._known}.values())[::-1]
        for at in range(0, len(new), self.chunk):
            part = new[at : at + self.chunk]
            for i, logits in zip(part, self._asked(rows[part]), strict=True):
                self._known[keys[i]] = logits
        return torch.stack([self._known[key] for key in keys]).to(x.device)

    def _asked(self, rows: Tensor) -> Logits:
        """From the service; again where it is busy, until patience ends."""
        request = Request(
            self.url,
            self.form.encode(rows.numpy()),
            headers={"User-Agent": "adamant", **self.form.headers()},
            method="POST",
        )
        wait, why = self.patience.wait, ""
        for attempt in range(self.patience.retries + 1):
            self._pay(len(rows))
            try:
                self._pace()
                with urlopen(request, timeout=self.patience.timeout) as answer:  # http or https: checked above
                    return self.output(self.form.decode(answer.read()), len(rows), self.classes)
            except HTTPError as error:
                why = f"{error.code} {error.reason} ({_some(error.read())})"
                if error.code not in _BUSY and error.code < 500:
                    raise ModelError(
                        f"{self.where} answered {why} to {len(rows)} rows of shape {tuple(rows.shape[1:])}: check the "
                        "address, the key and the form of the request."
                    ) from None
                wait = max(wait, _seconds(error.headers.get("Retry-After")))
            except (OSError, HTTPException) as error:  # no connection, none any more, or no answer in time
                why = str(getattr(error, "reason", "") or error) or type(error).__name__
            if attempt < self.patience.retries:
                time.sleep(min(wait, _LONGEST))
                wait *= 2
        raise ModelError(f"{self.where} did not answer in {self.patience.retries + 1} attempts; the last said: {why}.")

    def _pay(self, rows: int) -> None:
        if self.budget is not None and self.queries + rows > self.budget:
            raise Spent(f"The budget of {self.budget:,} queries is spent ({self.queries:,} rows sent to {self.where})")
        self.queries += rows

    def _pace(self) -> None:
        if self.rate is not None:
            time.sleep(max(0.0, self._last + 1 / self.rate - time.monotonic()))
        self._last = time.monotonic()


def _some(body: bytes) -> str:
    text = body.decode(errors="replace").strip()
    return repr(text[:120] + "..." * (len(text) > 120))


def _seconds(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:  # a date
        return 0.0


def load_endpoint(spec: str, _: Ask) -> nn.Module:
    """`https://host/path`, or `Endpoint('https://host/path', budget=5000, rate=10)` with settings."""
    if not spec.startswith("Endpoint("):
        return Endpoint(spec)
    known = {v.__name__: v for v in (Endpoint, Json, Patience, Probabilities, Scores, LabelsOf)}
    return read(spec, known, kind="model")
