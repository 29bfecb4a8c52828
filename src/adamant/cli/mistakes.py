"""What the reader of the command line says of a mistake, as one sentence."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from adamant.errors import InputError

_FRAME = re.compile(r"^[\s─━│╭╮╰╯|+-]*$")
_OPTION = re.compile(r"(--[a-z][\w-]*)")


def check_command(args: Sequence[str], commands: Sequence[str]) -> None:
    """Raise InputError unless the first word is a command, or asks for help."""
    asked = args[0] if args else ""
    if asked in commands or asked in ("-h", "--help") or asked.startswith("--tyro-"):
        return
    if not asked or asked.startswith("-"):
        what = f"{asked} is no command. " if asked else ""
        raise InputError(
            f"{what}Which command? Choose among {', '.join(commands)}; adamant --help says what each of them does."
        )
    near = difflib.get_close_matches(asked, commands, n=2, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Choose among {', '.join(commands)}."
    raise InputError(f"There is no command {asked!r}. {hint}")


def sentence(text: str, command: str) -> str:
    """The box that tyro prints for a mistake, as a sentence: what was wrong, what was perhaps meant, where help is."""
    parts: list[list[str]] = [[]]
    for line in text.splitlines():
        if not _FRAME.match(line):
            parts[-1].append(line.strip(" │|"))
        elif parts[-1] and line.strip():
            parts.append([])
    filled = [" ".join(part) for part in parts if part]
    if not filled:
        return f"The command line cannot be read; see adamant {command} --help."
    body = filled[1] if len(filled) > 1 else filled[0]
    meant = next((part for part in filled if part.startswith("Perhaps you meant")), "")
    near = [option for option in dict.fromkeys(_OPTION.findall(meant)) if option != "--help"][:2]
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"{body.rstrip('.')}.{hint} adamant {command} --help lists the options."
