"""Ctrl-C and its kind: one sentence that says what was kept, no traceback. A second one ends the process at once.

with listening():                                  the command line: from here on a signal raises Stopped
    with keeping(lambda: "app is as it was."):     whoever holds something says what becomes of it
        work()
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from slimseg.errors import harmless

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C, a polite kill, a terminal that is closed


class Stopped(BaseException):
    """A signal asked for an end. No KeyboardInterrupt, which the parser of the command line would keep to itself."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


@contextmanager
def listening() -> Iterator[None]:
    """Within the block, a signal ends the process with a sentence on standard error and the code 128 + its number."""
    heard = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    # what is ignored already stays ignored: nohup, jobs in the background of a script
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
    """Where the block is stopped, `what` is asked for a sentence on what was kept and how to go on."""
    try:
        yield
    except (Stopped, KeyboardInterrupt) as stopped:
        stopped.__notes__ = [*_notes(stopped), what()]  # as `add_note` does, which Python 3.10 has not
        raise


def _notes(stopped: BaseException) -> list[str]:
    return list(getattr(stopped, "__notes__", ()))
