"""ONNX models: computed by torch, with exact gradients, where the operators allow it, else asked for scores only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adamant.access import Sight
from adamant.errors import InputError, ModelError, first_line
from adamant.models.ask import Ask
from adamant.models.graph import GraphModule, Port, UnsupportedError
from adamant.models.layout import fits, ways
from adamant.models.onnx_files import before_activation, ports, read_graph, read_proto, showing
from adamant.models.onnx_module import OnnxModel, Source
from adamant.models.onnx_run import Runner, runner
from adamant.models.weights import existing
from adamant.random import Rng

_ROWS = 3
_SIDES = (32, 64, 224)  # tried in turn where a size is free
_TRACED = (1, 2, 4, 8, 16, 32)  # and where the number of rows is free by name only
_UNCHECKED = "The ONNX model is computed by torch, and that is unchecked"


def load_onnx(
    source: str | Path | Any, *, output: str | None = None, shape: tuple[int, ...] | None = None
) -> nn.Module:
    """An ONNX file, or ModelProto, as a torch module: weights are parameters, gradients are exact.

    A softmax or sigmoid at the end is left out, so that logits come back. The answer to a probe is compared with that
    of onnxruntime. Where an operator is unknown here, or the answers differ, onnxruntime is asked for scores, and the
    module says so (`shows`, `notes`). `output` names one of several outputs; `shape`, of one input, is for graphs
    whose sizes are free. Batch normalisation keeps its statistics and dropout is off, in training too.
    Raises `InputError` or `ModelError` for what is no ONNX classifier, `MissingExtraError` without the package onnx.
    """
    proto = read_proto(existing(str(source)) if isinstance(source, str | Path) else source)
    inputs, outputs = ports(proto)
    port, wanted = _one_input(inputs), _one_output(outputs, output)
    at, activation = before_activation(proto, wanted)
    notes: list[str] = []
    if activation:
        notes.append(f"The ONNX model ends in a {activation}; adamant takes the logits before it.")
    shown = showing(proto, (at,))
    try:
        core: GraphModule | str = GraphModule(read_graph(proto), at)
    except UnsupportedError as error:
        core = str(error)
    judge = runner(shown, port.name, reference=isinstance(core, GraphModule))
    fault, note = "", f"{_UNCHECKED}: {judge}."
    if isinstance(core, str):
        fault = core
    elif isinstance(judge, Runner):
        fault, note, port = _compared(core, judge, port, shape)
    if not fault and isinstance(core, GraphModule):
        return OnnxModel(
            core, port, free=_free(core, port, shape), shows=Sight.GRADIENT, notes=(*notes, note), source=Source(proto)
        ).eval()
    return _scores_only(runner(shown, port.name, reference=False), port, fault, notes, Source(proto))


def open_onnx(spec: Any, ask: Ask) -> nn.Module:
    """`load_onnx` as a door of `load_model`."""
    return load_onnx(spec, shape=ask.shape)


def _scores_only(held: Runner | str, port: Port, fault: str, notes: Sequence[str], source: Source) -> OnnxModel:
    if isinstance(held, str):
        raise ModelError(f"The ONNX model cannot be computed here: {fault.rstrip('.')}; and {held}.")
    free = port.sizes is None or (len(port.sizes) > 1 and port.sizes[0] is None)
    why = (
        f"The ONNX model is asked for scores only, through {held.who}: {fault.rstrip('.')}. Attacks that need a "
        "gradient cannot be run on it."
    )
    return OnnxModel(held, port, free=free, shows=Sight.SCORES, notes=(*notes, why), source=source).eval()


# ---------------------------------------------------------------------------------------------------------------------
# Which input and which output


def _one_input(inputs: Sequence[Port]) -> Port:
    if len(inputs) != 1:
        raise InputError(
            f"The ONNX model has {len(inputs)} inputs ({', '.join(map(str, inputs))}), and an attack changes one; "
            "export it again with the others fixed inside."
        )
    (port,) = inputs
    if port.dtype is None or not port.dtype.is_floating_point:
        raise InputError(
            f"The ONNX model's input {port} is of the type {port.dtype}, and adamant changes inputs of real numbers; "
            "export the model from where its values are real: after the cast, or from the embeddings on."
        )
    return port


def _one_output(outputs: Sequence[Port], asked: str | None) -> str:
    names = [p.name for p in outputs]
    matrices = [p.name for p in outputs if p.sizes is not None and len(p.sizes) == 2 and _real(p)]
    if asked is not None and asked in names:
        return asked
    if asked is None and len(names) == 1:
        return names[0]
    if asked is None and "logits" in names:
        return "logits"
    if asked is None and len(matrices) == 1:
        return matrices[0]
    told = f"none named {asked!r}" if asked is not None else "and it is not clear which are the logits"
    raise InputError(
        f"The ONNX model has {len(names)} outputs ({', '.join(map(str, outputs))}), {told}; choose one: "
        "adamant.models.load_onnx(path, output=NAME)."
    )


def _real(port: Port) -> bool:
    return port.dtype is not None and port.dtype.is_floating_point


# ---------------------------------------------------------------------------------------------------------------------
# The probe


def _probes(port: Port, shape: tuple[int, ...] | None, seed: int = 0) -> Iterator[Tensor]:
    """Inputs in [0, 1] of the sizes that the graph asks for, with several guesses where they are free."""
    given: list[tuple[int, ...]]
    if port.sizes is None:
        given = [(_ROWS, *shape)] if shape else []
    elif len(port.sizes) == 1:
        given = [(side,) for side in ((port.sizes[0],) if port.sizes[0] else _SIDES)]
    else:
        own = port.sizes[1:]
        asked = next((s for s in ways(shape) if fits(s, own)), None) if shape else None
        guesses = [asked] if asked else [tuple(s or side for s in own) for side in (_SIDES if None in own else (1,))]
        rows = (port.sizes[0],) if port.sizes[0] else (_ROWS, *(_TRACED if len(guesses) == 1 else ()))
        given = [(n, *guess) for n in rows for guess in guesses]
    for sizes in given:
        yield Rng.of(seed, sizes[0]).fold("probe").uniform(*sizes[1:]).to(port.dtype)


def _compared(core: GraphModule, judge: Runner, port: Port, shape: tuple[int, ...] | None) -> tuple[str, str, Port]:
    """Why torch's answers cannot be trusted, or ""; what to say where they can; and what the graph really takes."""
    troubles: list[str] = []
    for x in _probes(port, shape):
        try:
            want = judge(x)
        except Exception as error:
            troubles.append(f"{judge.who} raises on an input {tuple(x.shape)}: {first_line(error)}")
            continue
        fault, note = _agreement(core, x, want, judge.who)
        if port.sizes is not None and port.sizes[0] is None and len(x) != _ROWS:
            note += f" It takes {len(x)} rows at once, whatever it says: it was exported with that number inside."
            port = replace(port, sizes=(len(x), *port.sizes[1:]))
        return fault, note, port
    if troubles and port.sizes is not None and None not in port.sizes[1:]:
        raise ModelError(f"The ONNX model cannot be run: {troubles[0]}.")
    return "", f"{_UNCHECKED}: its sizes are free; give shape.", port


def _agreement(core: GraphModule, x: Tensor, want: Tensor, who: str) -> tuple[str, str]:
    try:
        with torch.no_grad():
            got = core(x)
    except Exception as error:
        return f"torch raises {type(error).__name__} where {who} answers ({first_line(error)})", ""
    if got.shape != want.shape:
        return f"torch answers with {tuple(got.shape)} and {who} with {tuple(want.shape)}", ""
    scale = float(want.double().abs().max().clamp_min(1e-30))
    apart = float((got.double() - want.double()).abs().max()) / scale
    most = 1e-2 if torch.finfo(got.dtype).bits == 16 else 1e-4
    if not apart <= most:  # nor where there is no number
        return f"torch and {who} differ by {apart:.1e} of the largest answer on a probe", ""
    return "", f"The ONNX model is computed by torch; on a probe it differs from {who} by {apart:.0e} of the largest."


def _free(core: Callable[[Tensor], Tensor], port: Port, shape: tuple[int, ...] | None) -> bool:
    """Whether the graph gives each row its own answer in a batch of any size, whatever size it was exported for."""
    if port.sizes is None or (len(port.sizes) > 1 and port.sizes[0] is None):
        return True
    alone = len(port.sizes) == 1
    one, two = (next(iter(_probes(port, shape, seed))) for seed in (0, 1))
    try:
        with torch.no_grad():
            apart = [core(one), core(two)]
            both = core(torch.stack([one, two]) if alone else torch.cat([one, two]))
        rows = torch.stack(apart) if alone else torch.cat(apart)
        return both.shape == rows.shape and torch.allclose(both, rows, rtol=1e-4, atol=1e-5 * float(rows.abs().max()))
    except Exception:  # sizes that were fixed on export show themselves in many ways
        return False
