"""Somebody else's answers to an ONNX model: onnxruntime, imported here only, or the reference evaluator of onnx."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor

from adamant.errors import first_line
from adamant.models.onnx_files import reference_evaluator


class Runner:
    """A function from a batch to logits outside of torch, without gradients; copies of a model share it."""

    def __init__(self, run: Callable[[Any], Any], who: str) -> None:
        self.run, self.who = run, who

    def __deepcopy__(self, memo: Any) -> Runner:
        return self

    def __call__(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.run(x.detach().cpu().numpy())).to(x.device)


def runner(proto: Any, name: str, *, reference: bool) -> Runner | str:
    """Whoever can run the graph, whose input is called `name`, or why nobody can; of its outputs the first counts.

    As a `reference` the graph is run as it is written: onnxruntime 1.31 joins a padding with zeros to a maximum pool
    after it, which pads otherwise, and answers wrongly.
    """
    try:
        found = _onnxruntime(proto, name, as_written=reference)
    except ImportError:
        found = "onnxruntime is not installed (pip install adamant[onnx])"
    except Exception as error:  # onnxruntime has a class of error for each of its reasons
        found = f"onnxruntime refuses it ({first_line(error)})"
    if isinstance(found, Runner) or not reference:
        return found
    try:
        evaluator = reference_evaluator(proto)
        return Runner(lambda x: evaluator.run(None, {name: x})[0], "the reference evaluator of onnx")
    except Exception as error:
        return f"{found}, and so does the reference evaluator of onnx ({first_line(error)})"


def _onnxruntime(proto: Any, name: str, *, as_written: bool) -> Runner:
    ort = cast(Any, import_module("onnxruntime"))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    if as_written:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Runner(lambda x: session.run(None, {name: x})[0], "onnxruntime")
