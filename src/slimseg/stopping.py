"""Stopping by Ctrl-C and similar signals: a message says what was kept, without a traceback.

A second signal ends the process at once.

with listening():                                  in the command line: from here on, a signal raises Stopped
    with keeping(lambda: "app is as it was."):     adds a sentence to the message, if the block is stopped
        work()
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from slimseg.errors import harmless

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C, `kill`, a closed terminal


class Stopped(BaseException):
    """A signal asked the process to end. Not a KeyboardInterrupt, as the command line's parser would catch that."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


@contextmanager
def listening() -> Iterator[None]:
    """Within the block, a signal ends the process: with a message on standard error and exit code 128 + its number."""
    heard = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    # Signals that are ignored already stay ignored, as under nohup or in a script's background jobs.
    before = {number: signal.getsignal(number) for number in heard if signal.getsignal(number) != signal.SIG_IGN}

    def stop(number: int, _: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        raise Stopped(number)

    try:
        try:
            for number in before:
                signal.signal(number, stop)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    except Stopped as stopped:
        print(harmless(" ".join(["Stopped.", *_notes(stopped)])), file=sys.stderr)
        sys.exit(128 + stopped.number)


@contextmanager
def keeping(what: Callable[[], str]) -> Iterator[None]:
    """If the block is stopped, `what` is called for a sentence about what was kept and how to resume."""
    try:
        yield
    except (Stopped, KeyboardInterrupt) as stopped:
        stopped.__notes__ = [*_notes(stopped), what()]  # as by `add_note`, which Python 3.10 lacks
        raise


def _notes(stopped: BaseException) -> list[str]:
    return list(getattr(stopped, "__notes__", ()))
