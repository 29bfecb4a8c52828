"""python -m adamant: the same as the command adamant."""

from adamant.cli.main import main

main()
