"""adamant: the command line. Every mistake ends in one sentence and exit code 2."""

from __future__ import annotations

import ctypes
import io
import os
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr
from typing import Annotated, Any

import tyro
from rich.console import Console

from adamant.cli.mistakes import check_command, sentence
from adamant.errors import AdamantError, InputError, Spent


def _members() -> dict[str, Any]:
    from adamant.cli.attack import Attack
    from adamant.cli.audit import Audit
    from adamant.cli.compare import Compare
    from adamant.cli.corrupt import Corrupt
    from adamant.cli.demo import Demo
    from adamant.cli.doctor import Doctor
    from adamant.cli.generate import Generate
    from adamant.cli.listing import Attacks, Models, Recipes, Threats
    from adamant.cli.report import Report
    from adamant.cli.train import Train
    from adamant.cli.transfer import Transfer
    from adamant.cli.tune import Tune

    members = (
        Demo, Audit, Attack, Train, Tune, Transfer, Corrupt, Generate, Doctor, Compare, Report,
        Attacks, Threats, Recipes, Models,
    )  # fmt: skip
    return {member.__name__.lower(): member for member in members}


def _read(args: list[str]) -> Any:
    """The command that the words ask for; raises InputError for words that make none."""
    members = _members()
    check_command(args, list(members))
    union: Any = None
    for name, member in members.items():
        named = Annotated[member, tyro.conf.subcommand(name)]
        union = named if union is None else union | named
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(
                union, prog="adamant", args=args, config=(tyro.conf.FlagCreatePairsOff,),
                description="Find out what it takes to change a model's mind, then make the model adamant.",
            )  # fmt: skip
    except SystemExit as leave:
        if leave.code in (None, 0):
            raise
        raise InputError(sentence(said.getvalue(), args[0])) from None


@contextmanager
def _polite_kill() -> Generator[None]:
    """Inside, SIGTERM is a Ctrl-C: what is finished is kept. Only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _keep_memory() -> None:
    """glibc gives large buffers back to the kernel at every layer of a network and asks for them again at the next.

    In a process of our own it may keep them: a fifth to a quarter of the time of an attack on a small network.
    """
    malloc_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if malloc_option:
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3
        malloc_option(mmap_threshold, 1 << 30)
        malloc_option(trim_threshold, (1 << 31) - 1)
        malloc_option(top_pad, 1 << 26)


def main(args: list[str] | None = None) -> None:
    """Read the command, run it, and leave with its exit code."""
    _keep_memory()
    args = sys.argv[1:] if args is None else args
    if args == ["--version"]:
        import adamant

        Console(highlight=False).print(f"adamant {adamant.__version__}")
        sys.exit(0)
    errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
    command: Any = None
    try:
        with _polite_kill():
            command = _read(args)
            code = command.run()
    except AdamantError as error:
        if os.environ.get("ADAMANT_DEBUG"):
            raise
        errors.print(f"adamant: {' '.join(str(error).split())}", style="red")
        code = 2
    except KeyboardInterrupt as stop:
        goes_on = hasattr(command, "resume")
        kept = "What was finished is kept; the same command with --resume goes on."
        why = str(stop) if isinstance(stop, Spent) else getattr(stop, "why", "")
        errors.print(
            f"adamant: stopped{f': {why}' if why else ''}. {kept if goes_on else 'Start it again when you like.'}"
        )
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
