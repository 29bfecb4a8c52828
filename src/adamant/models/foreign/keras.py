"""Keras models, on any of the three backends: the one file that imports keras."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, cast, final

import torch
from torch import Tensor

from adamant.errors import AdamantError, MissingExtraError, ModelError
from adamant.models.ask import Ask
from adamant.models.foreign.bridge import Tensors, Traced
from adamant.models.foreign.jax import JaxFunction
from adamant.models.foreign.keras_files import described, missing, readable
from adamant.models.foreign.keras_logits import AsItIs, Reading, reading
from adamant.models.foreign.module import Foreign
from adamant.models.foreign.tensorflow import TensorFlowFunction, tensorflow
from adamant.models.layout import Shape
from adamant.models.weights import existing
from adamant.random import Rng

SUFFIXES = (".keras", ".h5", ".hdf5")
_BRIDGES: dict[str, Callable[[Callable[..., Any]], Traced]] = {"tensorflow": TensorFlowFunction, "jax": JaxFunction}
_SIDE = 64  # of inputs that may have any size
_ROOMS = ("layers", "models", "initializers", "regularizers", "constraints", "activations", "losses", "metrics")


def keras() -> Any:
    """Keras 3 on the backend that it runs on already, or that KERAS_BACKEND names, and else on torch.

    Raises MissingExtraError where it, or its backend, is not installed.
    """
    asked = os.environ.get("KERAS_BACKEND")
    if asked == "tensorflow" and "keras" not in sys.modules:
        tensorflow()
    try:
        with _on_torch(unless=bool(asked) or not {"keras", "tensorflow"}.isdisjoint(sys.modules)):
            found = cast(Any, import_module("keras"))
    except ImportError as error:
        raise MissingExtraError(f"This model needs Keras ({error}): pip install adamant[keras].") from error
    if int(found.__version__.partition(".")[0]) < 3:
        raise MissingExtraError(
            f"Keras {found.__version__} is installed, and adamant works with Keras 3: pip install adamant[keras]."
        )
    if found.config.backend() not in ("torch", *_BRIDGES):
        raise MissingExtraError(
            f"Keras runs on {found.config.backend()}, which has no gradients: set KERAS_BACKEND to torch, tensorflow "
            "or jax."
        )
    return found


@contextmanager
def _on_torch(*, unless: bool) -> Generator[None]:
    if unless:
        yield
        return
    os.environ["KERAS_BACKEND"] = "torch"
    try:
        yield
    finally:
        del os.environ["KERAS_BACKEND"]


@final
class KerasHost:
    """A Keras model whose variables stand back, while it computes, for the tensors that it is given."""

    suffix = ".keras"

    def __init__(self, model: Any, shape: Shape, read: Reading) -> None:
        self.model, self.read = model, read
        self.shape: Shape | None = shape
        backend = keras().config.backend()
        self.native, self.sizes = backend == "torch", backend == "jax"
        self.notes = (read.note,) if read.note else ()
        self.classes = 0  # until it has been asked
        counted = {id(v) for v in model.metrics_variables}
        taken: set[str] = set()
        self._weights = _named(model.trainable_variables, model.name, taken)
        self._state = _named((v for v in model.non_trainable_variables if id(v) not in counted), model.name, taken)
        self._functions: dict[bool, Any] = {}

    def held(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        weights, state = ({name: _tensor(v) for name, v in held.items()} for held in (self._weights, self._state))
        return weights, state

    def function(self, training: bool) -> Traced | Callable[..., Tensors]:
        if training not in self._functions:
            raw = partial(self._compute, training)
            self._functions[training] = raw if self.native else _BRIDGES[keras().config.backend()](raw)
        return self._functions[training]

    def _compute(self, training: bool, x: Any, *values: Any) -> tuple[Any, ...]:
        k = keras()
        variables = [*self._weights.values(), *self._state.values()]
        with ExitStack() as stack:
            if self.native:  # torch knows where the tensors are, and Keras asks its own setting
                stack.enter_context(k.device(str(x.device)))
            scope = stack.enter_context(k.StatelessScope(state_mapping=list(zip(variables, values, strict=True))))
            logits = self.read(k, self.model, x, training)
            state = [scope.get_current_value(v) for v in self._state.values()] if training else []
        return (logits, *state)

    def receive(self, weights: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Any:
        for held, values in ((self._weights, weights), (self._state, state)):
            for name, value in values.items():
                held[name].assign(keras().ops.convert_to_tensor(value.cpu().numpy(), dtype=held[name].dtype))
        return self.model

    def save(self, path: Path) -> None:
        self.model.save(path)


def host(model: Any, _: Ask) -> Foreign:
    """A Keras model as a torch module; raises ModelError for one that is no classifier of one input."""
    k = keras()
    if not isinstance(model, k.Model):
        raise ModelError(f"A {type(model).__name__} of Keras is no model that answers: give a keras.Model.")
    shape = _shape(model)
    probe, plain = _probe(shape), KerasHost(model, shape, AsItIs())
    tried: dict[Reading, KerasHost] = {plain.read: plain}

    def ask(way: Reading) -> Tensor:
        return _answer(tried.setdefault(way, KerasHost(model, shape, way)), probe)

    answer = ask(plain.read)
    read = reading(k, model, answer, ask)
    made = tried.get(read) or KerasHost(model, shape, read)
    made.classes = 2 if read.pair else answer.shape[1]
    return Foreign(made).eval()


def load_keras(spec: str, ask: Ask) -> Foreign:
    """The model of a .keras or .h5 file, of Keras 3 or 2, as a torch module.

    Raises ModelError where the file carries code, unless `ask.trust`, or needs classes that Keras does not know, and
    InputError where it is no whole Keras model.
    """
    held = described(existing(spec))
    k = keras()
    if not ask.trust:
        held.refuse_code()
        if strange := missing(held, partial(_known, k)):
            raise ModelError(
                f"{spec} is made of {', '.join(strange)}, which Keras does not know. Import what registers them "
                "(@keras.saving.register_keras_serializable()) before you load it; or, on the command line, name a "
                f"function that imports them and returns keras.models.load_model({str(spec)!r}): "
                "package.module:function."
            )
    try:
        with warnings.catch_warnings(), readable(held) as path:
            warnings.simplefilter("ignore")  # on how the file might have been written are not the reader's to act on
            model = k.models.load_model(path, compile=False, safe_mode=not ask.trust)
    except (AdamantError, MemoryError):
        raise
    except Exception as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise ModelError(
            f"Keras {k.__version__} cannot build the model of {spec}, written by Keras {held.version} ({why[:300]})."
        ) from error
    return host(model, ask)


def _known(k: Any, module: str, name: str) -> bool:
    if module.partition(".")[0] in ("keras", "tf_keras", "builtins"):
        return True
    if k.saving.get_registered_object(name) is not None:
        return True
    return not module and (name == "Functional" or any(hasattr(getattr(k, room), name) for room in _ROOMS))


def _shape(model: Any) -> Shape:
    """Of one input, without the batch, as far as the model says."""
    given = getattr(model, "inputs", None)
    if not model.built:
        raise ModelError(
            f"The Keras model {model.name!r} has no weights yet: call it once on a batch before you hand it over."
        )
    for what, tensors in (("input", given), ("output", getattr(model, "outputs", None))):
        if tensors is not None and len(tensors) > 1:
            names = ", ".join(t.name for t in tensors)
            raise ModelError(
                f"The Keras model {model.name!r} has {len(tensors)} {what}s ({names}), and adamant works with one: "
                f"make a keras.Model with one {what} of them."
            )
    _refuse_numbers(model, given)
    if given:
        return tuple(given[0].shape[1:])
    shape = (model.get_build_config() or {}).get("input_shape")
    if not isinstance(shape, (tuple, list)):
        raise ModelError(
            f"The Keras model {model.name!r} does not say which inputs it takes: make it keras.Sequential([keras.Input("
            "shape), model]), or with keras.Model."
        )
    return tuple(cast(tuple[int | None, ...], shape)[1:])


def _refuse_numbers(model: Any, given: Any) -> None:
    """Raise ModelError for a model that looks its inputs up in a table."""
    layers = keras().layers
    tables = tuple(
        getattr(layers, name) for name in ("Embedding", "TextVectorization", "StringLookup", "IntegerLookup")
    )
    first = [one for one in model.layers if not isinstance(one, layers.InputLayer)][:1]
    whole = bool(given) and "float" not in given[0].dtype
    if whole or any(isinstance(one, tables) for one in first):
        what = given[0].dtype if whole else f"whole numbers, for its {type(first[0]).__name__}"
        raise ModelError(
            f"The Keras model {model.name!r} takes {what}, which no small change can be made to: give a keras.Model "
            "that begins behind the table, with what it looks up as input."
        )


def _probe(shape: Shape) -> Tensor:
    """Some inputs in the model's own layout, with values as pictures have."""
    return Rng.of(0, 16).fold("probe").uniform(*(side or _SIDE for side in shape))


def _answer(made: KerasHost, probe: Tensor) -> Tensor:
    try:
        with torch.no_grad():
            answer = Foreign(made).eval()(probe)
    except Exception as error:
        why = (str(error).strip().splitlines() or ["no message"])[0]
        raise ModelError(
            f"The Keras model {made.model.name!r} raised {type(error).__name__} on inputs of shape "
            f"{tuple(probe.shape)} ({why[:300]})."
        ) from error
    if answer.ndim != 2:
        raise ModelError(
            f"The Keras model {made.model.name!r} returns {tuple(answer.shape)} for {len(probe)} inputs; a classifier "
            "returns (n, classes)."
        )
    return answer


def _named(variables: Iterable[Any], start: str, taken: set[str]) -> dict[str, Any]:
    """By paths within the model, whatever number Keras gave to the model and to its seeds in this process."""
    found: dict[str, Any] = {}
    for v in variables:
        path = "seed" if "seed_generator" in v.path else str(v.path).removeprefix(f"{start}/")
        name, more = path, 1
        while name in taken:
            name, more = f"{path}_{more}", more + 1
        taken.add(name)
        found[name] = v
    return found


def _tensor(variable: Any) -> Tensor:
    if isinstance(variable.value, Tensor):
        return variable.value.detach().clone()
    kind = getattr(torch, str(variable.dtype))
    numbers = keras().ops.convert_to_numpy(variable.value)
    return torch.tensor(numbers.astype("float32") if kind is torch.bfloat16 else numbers).to(kind)
