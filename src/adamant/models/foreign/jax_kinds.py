"""The kinds of models that people write in JAX: where their weights and state are, and how each is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

from adamant.errors import InputError, ModelError
from adamant.models.foreign.calls import mode_words, takes
from adamant.models.foreign.jax import jax, module_of


@final
@dataclass(frozen=True)
class Kind:
    """A model as two trees of arrays and a function of them."""

    params: Any
    state: Any
    call: Callable[[Any, Any, Any, bool], tuple[Any, Any]]  # params, state, x, training to logits and new state
    made: Callable[[Any, Any], Any]  # the trees as the user had the model
    modes: bool  # whether it computes otherwise while it trains


def kind_of(model: Any, params: Any, state: Any) -> Kind:
    """Raises InputError for what is no model of JAX."""
    homes = {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
    if "equinox" in homes:
        return _equinox(model, state)
    if "flax" in homes:
        return _linen(model, params) if hasattr(model, "apply") else _nnx(model)
    if not callable(model):
        raise InputError(
            f"A {type(model).__name__} is no model of JAX: give a function, or a module of Flax or Equinox."
        )
    return _function(model, params, state)


def _function(model: Callable[..., Any], params: Any, state: Any) -> Kind:
    def plain(p: Any, s: Any, x: Any, _training: bool) -> tuple[Any, Any]:
        return (model(x) if params is None else model(p, x)), s

    def moving(p: Any, s: Any, x: Any, training: bool) -> tuple[Any, Any]:
        return model(p, s, x, training=training)

    def made(p: Any, s: Any) -> Any:
        return p if state is None else (p, s)

    return Kind(_inexact(params), state, plain if state is None else moving, made, modes=state is not None)


def _inexact(params: Any) -> Any:
    np = jax().numpy
    for leaf in jax().tree.leaves(params):
        if not np.issubdtype(np.asarray(leaf).dtype, np.floating):
            raise ModelError(f"The tree of parameters holds {leaf!r}, which has no gradient: keep it in the function.")
    return params


def _nnx(model: Any) -> Kind:
    nnx = module_of("flax.nnx")
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    words = mode_words(model)

    def call(p: Any, s: Any, x: Any, training: bool) -> tuple[Any, Any]:
        net = nnx.merge(graph, p, s, copy=True)
        (net.train if training else net.eval)()
        out = net(x, **words(training))
        nnx.pop(net, nnx.Intermediate)
        return out, nnx.split(net, nnx.Param, ...)[2]

    def made(p: Any, s: Any) -> Any:
        return nnx.merge(graph, p, s, copy=True)

    return Kind(params, rest, call, made, modes=True)


def _linen(model: Any, variables: Any) -> Kind:
    if variables is None:
        if model.scope is None:
            raise InputError(
                "A Linen module holds no weights: give module.bind(variables), or from_jax(module, variables)."
            )
        model, variables = model.unbind()
    words, rest = mode_words(model), {k: v for k, v in variables.items() if k != "params"}

    def call(p: Any, s: Any, x: Any, training: bool) -> tuple[Any, Any]:
        if not training or "key" not in s:
            return model.apply({"params": p, **s["variables"]}, x, **words(False)), s
        now, later = jax().random.split(s["key"])
        out, new = model.apply(
            {"params": p, **s["variables"]}, x, **words(True), mutable=list(rest), rngs={"dropout": now}
        )
        return out, {"variables": {name: new.get(name, rest[name]) for name in rest}, "key": later}

    def made(p: Any, s: Any) -> Any:
        return {"params": p, **s["variables"]}

    if not words(True):
        return Kind(
            variables["params"], {"variables": rest}, lambda p, s, x, t: call(p, s, x, False), made, modes=False
        )
    state = {"variables": rest, "key": jax().random.key(0)}
    return Kind(variables["params"], state, call, made, modes=True)


def _equinox(model: Any, state: Any) -> Kind:
    eqx = module_of("equinox")
    params, still = eqx.partition(model, eqx.is_inexact_array)
    draws = "key" in takes(model)
    held = {"state": state} | ({"key": jax().random.key(0)} if draws else {})

    def call(p: Any, s: Any, x: Any, training: bool) -> tuple[Any, Any]:
        net = eqx.nn.inference_mode(eqx.combine(p, still), value=not training)
        new, more, axes = dict(s), {}, {}
        if draws:
            now, new["key"] = jax().random.split(s["key"])
            more, axes = {"key": jax().random.split(now, len(x))}, {"key": 0}

        def plain(x: Any, more: Any) -> Any:
            return net(x, **more)

        def moving(x: Any, s: Any, more: Any) -> Any:
            return net(x, s, **more)

        if state is None:
            out = jax().vmap(plain, (0, axes), axis_name="batch")(x, more)
        else:
            ask = jax().vmap(moving, (0, None, axes), (0, None), axis_name="batch")
            out, new["state"] = ask(x, s["state"], more)
        return out, new if training else s

    def made(p: Any, s: Any) -> Any:
        net = eqx.combine(p, still)
        return net if state is None else (net, s["state"])

    return Kind(params, held, call, made, modes=True)
