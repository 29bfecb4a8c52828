"""Exported programs (.pt2): looked into before they are loaded, as torch's reader unpickles and executes.

Raw tensors and a graph of tensor operations pass; pickled objects, compiled libraries and text that is no size do not.
This keeps a careless file out. A program is still somebody's program: open only those whose author you trust.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from adamant.errors import InputError, ModelError
from adamant.models.wrap import Exported

_ENTRY = re.compile(
    r"[^/]+/(archive_format|archive_version|byteorder|\.data/\w+|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)|extra/.*)"
)
_TARGET = re.compile(
    r"torch\.(ops\.[\w.]+|sym_\w+|_check\w*|_higher_order_ops\.[\w.]+|_assert\w*|autograd\.grad_mode\.\w+)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|xor|not_|getitem)"
    r"|math\.\w+"
)
_EXPRESSION = re.compile(r"[\w\s+\-*/%<>=!&|~(),.:\[\]]*")
_SYMBOL = re.compile(r"Symbol\('\w+'(, \w+=(True|False))*\)")  # how torch writes a free size
_CALL = re.compile(r"([A-Za-z_][\w.]*)\s*\(")
_CALLED = re.compile(
    r"[A-Z]\w*|[\w.]+\.(size|stride|storage_offset|numel|dim)|(math\.)?\w*(isnan|floor|ceil|trunc)|and|or|not"
)


def load_exported(path: Path) -> nn.Module:
    """The program of a .pt2 file as a module whose mode cannot change, after a look that refuses what would run code.

    Raises `ModelError` naming what was found, `InputError` for a file that is no exported program.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            fault = next(_faults(archive), None)
    except (zipfile.BadZipFile, ValueError) as error:
        raise _unreadable(path, error) from error
    if fault:
        raise ModelError(
            f"{path} holds {fault}, which could run any code while it is loaded, so adamant does not open it. "
            'Export the model again with torch.export.save(torch.export.export(model, (x,)), "model.pt2").'
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on the exporter's version are not the user's to act on
            return Exported(torch.export.load(str(path)).module())
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} is not an exported program that torch {torch.__version__} reads ({type(error).__name__}: {error}); "
        "export it again with torch.export.save."
    )


def _faults(archive: zipfile.ZipFile) -> Iterator[str]:
    for name in archive.namelist():
        if not _ENTRY.fullmatch(name):
            yield f"the entry {name!r}"
        elif name.endswith("model.pt") and (fault := _sample_fault(archive.read(name))):
            yield f"sample inputs that are not tensors ({fault})"
        elif name.endswith(".json") and "/extra/" not in name:
            yield from _json_faults(json.loads(archive.read(name)))


def _sample_fault(content: bytes) -> str:
    try:
        if content:
            torch.load(io.BytesIO(content), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        return str(error).splitlines()[0]
    return ""


def _json_faults(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in cast(dict[str, Any], node).items():
            if key == "use_pickle" and value:
                yield "a pickled tensor"
            elif key == "target" and isinstance(value, str) and not _TARGET.fullmatch(value) and "." in value:
                yield f"a call of {value!r}"
            elif key == "expr_str" and isinstance(value, str) and not _harmless(value):
                yield f"the expression {value!r}"
            elif key == "guards_code" and isinstance(value, list):
                yield from (f"the guard {g!r}" for g in cast(list[Any], value) if not _harmless(str(g)))
            else:
                yield from _json_faults(value)
    elif isinstance(node, list):
        for value in cast(list[Any], node):
            yield from _json_faults(value)


def _harmless(expression: str) -> bool:
    expression = _SYMBOL.sub("s", expression)
    called = cast(list[str], _CALL.findall(expression))
    return bool(_EXPRESSION.fullmatch(expression)) and "__" not in expression and all(map(_CALLED.fullmatch, called))
