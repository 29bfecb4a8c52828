"""adamant: the command line. Every mistake ends in one sentence and exit code 2."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, Any

import tyro
from rich.console import Console

from adamant.errors import AdamantError


def _commands() -> Any:
    from adamant.cli.attack import Attack
    from adamant.cli.audit import Audit
    from adamant.cli.demo import Demo
    from adamant.cli.listing import Attacks, Models, Recipes, Threats
    from adamant.cli.report import Report
    from adamant.cli.train import Train

    members = (Demo, Audit, Attack, Train, Report, Attacks, Threats, Recipes, Models)
    union: Any = None
    for member in members:
        named = Annotated[member, tyro.conf.subcommand(member.__name__.lower())]
        union = named if union is None else union | named
    return union


def main(args: list[str] | None = None) -> None:
    """Read the command, run it, and leave with its exit code."""
    args = sys.argv[1:] if args is None else args
    if args == ["--version"]:
        import adamant

        Console(highlight=False).print(f"adamant {adamant.__version__}")
        sys.exit(0)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill is a Ctrl-C: what is finished is kept
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        command = tyro.cli(
            _commands(), prog="adamant", args=args, config=(tyro.conf.FlagCreatePairsOff,),
            description="Find out what it takes to change a model's mind, then make the model adamant.",
        )  # fmt: skip
        sys.exit(command.run())
    except AdamantError as error:
        if os.environ.get("ADAMANT_DEBUG"):
            raise
        errors.print(f"adamant: {error}", style="red", markup=False)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print(
            "adamant: stopped. What was finished is kept; the same command with --resume goes on.", markup=False
        )
        sys.exit(130)


if __name__ == "__main__":
    main()
