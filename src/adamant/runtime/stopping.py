"""Ctrl-C and SIGTERM, which end a run between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from adamant.shards import Shard


@contextmanager
def asked_to_stop(shard: Shard) -> Generator[Callable[[], bool]]:
    """Inside, Ctrl-C and SIGTERM only ask to stop, so that no step is cut in two; a second Ctrl-C does cut.

    Not under torchrun, which sends each signal once more.
    """
    asked: list[int] = []

    def ask(number: int, _frame: object) -> None:
        if asked and number == signal.SIGINT and shard.world == 1:
            raise KeyboardInterrupt
        asked.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
