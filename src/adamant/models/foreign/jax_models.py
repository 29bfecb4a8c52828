"""Models of JAX: functions with a tree of parameters, Flax NNX, Flax Linen, Equinox."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast, final

import safetensors.torch
from torch import Tensor

from adamant.errors import InputError, ModelError
from adamant.files import write_whole
from adamant.models.ask import Ask
from adamant.models.foreign.bridge import Traced
from adamant.models.foreign.jax import JaxFunction, jax, module_of, to_torch
from adamant.models.foreign.jax_kinds import Kind, kind_of
from adamant.models.foreign.module import Foreign
from adamant.models.layout import Shape, made_for, ways


def from_jax(model: Any, params: Any = None, *, state: Any = None, shape: Shape | None = None) -> Foreign:
    """A model of JAX as a torch module, whose weights are torch parameters and can be hardened.

    - a function `model(params, x)` with its tree of parameters; with `state`, a tree of statistics and random keys, it
      is `model(params, state, x, training=...)` and returns the logits and the new state
    - a Flax NNX module
    - a Flax Linen module with its variables as `params`, or bound to them: `module.bind(variables)`
    - an Equinox module, which takes one input at a time; of a stateful one also its `state`

    `shape` is that of one input as the model takes it, (28, 28, 1) for a grey picture of Flax, (1, 28, 28) of Equinox.
    Raises `InputError` without a shape, `ModelError` for several outputs or labels.
    """
    if not shape or None in shape:
        raise InputError(
            "JAX models do not know the shape of their inputs: give that of one, as the model takes it, "
            "shape=(28, 28, 1) for grey pictures of 28 by 28 with the channels last."
        )
    return Foreign(JaxHost(kind_of(model, params, state), shape)).eval()


def host(model: Any, ask: Ask) -> Foreign:
    """The door for objects of JAX and its neighbours, which are tried in the layouts of the shape asked for."""
    return from_jax(model) if ask.shape is None else made_for(lambda way: from_jax(model, shape=way), ways(ask.shape))


@final
class JaxHost:
    """A model of JAX behind `Foreign`: weights and state are the leaves of its trees."""

    sizes, native, suffix = True, False, ".safetensors"
    notes = ()

    def __init__(self, kind: Kind, shape: Shape) -> None:
        self.kind = kind
        self.shape: Shape | None = shape
        self._weights, self._tree = _leaves(kind.params)
        state, self._state_tree = _leaves(kind.state)
        self._state = {f"state/{name}" if name in self._weights else name: leaf for name, leaf in state.items()}
        self.classes = self._checked(shape)
        self._traced = {mode: JaxFunction(self._raw(training=mode)) for mode in (False, True)}
        if not self._state and not kind.modes:
            self._traced[True] = self._traced[False]

    def held(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return _values(self._weights), _values(self._state)

    def function(self, training: bool) -> Traced:
        return self._traced[training]

    def receive(self, weights: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Any:
        self._weights, self._state = _arrays(weights, self._weights), _arrays(state, self._state)
        return self.kind.made(self._grown(*self._weights.values()), self._born(*self._state.values()))

    def save(self, path: Path) -> None:
        """As one safetensors file, by the names of the leaves; as a folder of orbax where the path has no suffix."""
        weights, state = self.held()
        if path.suffix == self.suffix:
            write_whole(path, safetensors.torch.save({**weights, **state}))
        elif path.suffix:
            raise InputError(f"A JAX model is saved as {self.suffix} or as a folder of orbax, not as {path.name!r}.")
        else:
            held = {"params": self._grown(*self._weights.values()), "state": self._born(*self._state.values())}
            with module_of("orbax.checkpoint").StandardCheckpointer() as saver:
                saver.save(path.absolute(), _plain({k: v for k, v in held.items() if jax().tree.leaves(v)}))

    def _raw(self, *, training: bool) -> Callable[..., tuple[Any, ...]]:
        n = len(self._weights)

        def raw(x: Any, *held: Any) -> tuple[Any, ...]:
            out, new = self.kind.call(self._grown(*held[:n]), self._born(*held[n:]), x, training)
            if not training:
                return (out,)
            found = jax().tree.leaves(new)
            kinds = [leaf.dtype for leaf in self._state.values()]
            return (out, *(_bare(leaf).astype(kind) for leaf, kind in zip(found, kinds, strict=True)))

        return raw

    def _grown(self, *leaves: Any) -> Any:
        return jax().tree.unflatten(self._tree, leaves)

    def _born(self, *leaves: Any) -> Any:
        whole = [_keyed(leaf, like) for leaf, like in zip(leaves, jax().tree.leaves(self.kind.state), strict=True)]
        return jax().tree.unflatten(self._state_tree, whole)

    def _checked(self, shape: Shape) -> int:
        """The number of classes; raises ModelError where it returns no logits."""
        kind = next((w.dtype for w in self._weights.values()), "float32")

        def ask(x: Any) -> Any:
            return self.kind.call(self.kind.params, self.kind.state, x, False)[0]

        try:
            out = jax().eval_shape(ask, jax().ShapeDtypeStruct((2, *shape), kind))
        except (ModelError, InputError):
            raise
        except Exception as error:
            said = (str(error).strip().splitlines() or ["no message"])[0]
            raise ModelError(
                f"The model raised {type(error).__name__} on inputs of shape (2, {str(shape)[1:]}: {said} "
                "Check that shape is that of one input as the model takes it."
            ) from error
        if isinstance(out, dict | list | tuple):
            several = cast(Any, out)
            raise ModelError(
                f"The model returns a {type(several).__name__} of {len(several)}: give a function that returns the "
                "logits alone."
            )
        if not jax().numpy.issubdtype(out.dtype, jax().numpy.floating):
            raise ModelError(
                f"The model returns {out.dtype}: labels are no logits, return the scores before the argmax."
            )
        if len(out.shape) != 2 or out.shape[0] != 2:
            raise ModelError(f"For 2 inputs the model returns the shape {out.shape}; it must be (2, classes).")
        return int(out.shape[1])


def _leaves(tree: Any) -> tuple[dict[str, Any], Any]:
    """The arrays of a tree by name, keys of random numbers as the words that they are made of."""
    j = jax()
    found: dict[str, Any] = {}
    paths, structure = j.tree_util.tree_flatten_with_path(tree)
    for path, leaf in paths:
        found[j.tree_util.keystr(path, simple=True, separator="/")] = j.numpy.asarray(_bare(leaf))
    if len(found) != len(paths):
        raise ModelError("Two leaves of the tree have the same name: rename one of them.")
    return found, structure


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax().dtypes.issubdtype(leaf.dtype, jax().dtypes.prng_key)


def _bare(leaf: Any) -> Any:
    return jax().random.key_data(leaf) if _is_key(leaf) else leaf


def _keyed(leaf: Any, like: Any) -> Any:
    return jax().random.wrap_key_data(leaf, impl=jax().random.key_impl(like)) if _is_key(like) else leaf


def _plain(tree: Any) -> Any:
    """With keys of random numbers as their words, which every reader knows."""
    return jax().tree.map(_bare, tree)


def _values(leaves: Mapping[str, Any]) -> dict[str, Tensor]:
    return dict(zip(leaves, to_torch(leaves.values()), strict=True))


def _arrays(tensors: Mapping[str, Tensor], like: Mapping[str, Any]) -> dict[str, Any]:
    """New arrays, on the device of the old ones, in their order."""
    move, new = jax().device_put, jax().numpy.array
    return {name: move(new(tensors[name].cpu().numpy()), next(iter(old.devices()))) for name, old in like.items()}
