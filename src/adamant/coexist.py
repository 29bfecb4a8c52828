"""TensorFlow and triton in one process, in whatever order they come.

TensorFlow from 2.20 on lays its symbols open to every library loaded after it. Triton, which torch loads with its first
optimiser or compilation, then finds TensorFlow's LLVM in place of its own and ends the process. Loaded with
RTLD_DEEPBIND it keeps to its own. See https://github.com/tensorflow/tensorflow/issues/124205.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder
from types import ModuleType
from typing import final

_LIBRARY = "triton._C.libtriton"


@final
class _Deep(ExtensionFileLoader):
    """Loads an extension module whose own symbols come before those of the process."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        before = sys.getdlopenflags()
        sys.setdlopenflags(before | os.RTLD_DEEPBIND)
        try:
            return super().create_module(spec)
        finally:
            sys.setdlopenflags(before)


@final
class _Guard:
    """Finds one library, and only where TensorFlow came before it; everything else is found as ever."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _LIBRARY or "tensorflow" not in sys.modules:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, ExtensionFileLoader):
            spec.loader = _Deep(name, spec.loader.path)
        return spec


def watch() -> None:
    """From now on triton loads safely behind TensorFlow; costs a comparison for each module imported anew."""
    waiting = _LIBRARY not in sys.modules and not any(isinstance(f, _Guard) for f in sys.meta_path)
    if waiting and hasattr(os, "RTLD_DEEPBIND"):  # Linux, where alone there is a triton
        sys.meta_path.insert(0, _Guard())
