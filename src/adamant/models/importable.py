"""package.module:callable: what a person's own code holds, or makes when it is called."""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from torch import nn

from adamant.errors import AdamantError, InputError, ModelError
from adamant.random import sealed

FORM = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def imported(spec: str, is_model: Callable[[Any], bool]) -> Any:
    """The model of that name, or what the named factory returns; a fixed seed keeps torch's generator as it was."""
    name, _, attribute = spec.partition(":")
    with _current_directory(), sealed(0):
        found = _attribute(spec, _module(spec, name), attribute)
        if isinstance(found, nn.Module) or (is_model(found) and not isinstance(found, type)):
            return found
        if not callable(found):
            raise InputError(
                f"{spec} is a {type(found).__name__}; name a torch module, or a function that returns one."
            )
        try:
            return cast(Any, found())
        except AdamantError:
            raise
        except Exception as error:
            raise ModelError(
                f"{spec}() raised {type(error).__name__}: {error}; "
                "it is called without arguments and must return a model."
            ) from error


@contextmanager
def _current_directory() -> Generator[None]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _module(spec: str, name: str) -> Any:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise InputError(
                f"{spec}: there is no Python module {name!r} in {Path.cwd()} or among the installed."
            ) from error
        raise ModelError(f"{spec}: {name} itself imports {error.name!r}, which is not installed.") from error
    except Exception as error:
        raise ModelError(f"{spec}: importing {name} raised {type(error).__name__}: {error}.") from error


def _attribute(spec: str, module: Any, attribute: str) -> Any:
    found = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else "."
            raise InputError(f"{spec}: {module.__name__} has no {part!r}{hint}")
        found = getattr(found, part)
    return found
