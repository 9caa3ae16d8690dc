"""Native runtimes run in a child process: a crash on a strange model is reported as a failure, and a search goes on.

    parent                                          child (`python -m slimseg.runtimes.child`)
    call("package.module:function", *args) ──> import it, run it
    value, or the exception raised here    <── ("value", result) | ("slimseg", error) | ("other", text)

A message is an 8-byte length and a pickle, and goes only between these two processes. The child first moves its
messages away from file descriptors 0 and 1, so that all that native code prints goes to a log, whose end explains a
crash. The child never outlives its parent, whatever ends the parent (`_end_with_parent`); its temporary files are
deleted with those of the parent. It is a plain subprocess, not one of `multiprocessing`: a user's script may lack the
`__main__` guard that spawning needs.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import pickle
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from slimseg import memory_bounds
from slimseg.disk import scratch
from slimseg.errors import ModelError, RuntimeFailure, SlimsegError

_LENGTH = struct.Struct("<Q")
_CHATTER = re.compile(r"^(INFO|WARNING|[IW]\d{4} )|it/s\]|\?it/s")  # delegates that announce themselves, progress bars
# The first line that Python's faulthandler prints on a crash; the call stack follows, newest call first.
_STACK = re.compile(r"^Fatal Python error|\(most recent call first\)")
_FILES_FAULT = re.compile("the native runtime (refused|crashed)")  # running out of time is not the file's fault
_QUOTED = 400  # most characters of native output that an error quotes, and most characters of a stack
MOST_MEMORY_BYTES = 8 << 30  # limit for the child: runtimes need more only for absurd files
_MOST_READ = 1 << 20  # bytes of the log of one call that are read
_LOG_LIMIT = 16 << 20  # size in bytes above which the log is emptied


class Child:
    """One child process, started on the first call and again after a crash. Safe to use from several threads.

    Args:
        environment: environment variables of the child, beside those of this process.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._variables = dict(environment or {})
        self._printed = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._log: BinaryIO | None = None
        self._lifeline: int | None = None  # the end of a pipe: when it closes, the child ends
        self._lock = threading.Lock()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id, or None while it is not running."""
        return self._process.pid if self._process else None

    @property
    def printed(self) -> str:
        """What native code printed during the last call that ended without a crash: some answers are only there."""
        return self._printed

    def close(self) -> None:
        """End the child; a later call starts a new one."""
        process, self._process = self._process, None
        log, self._log = self._log, None
        lifeline, self._lifeline = self._lifeline, None
        if process is None:
            return
        process.kill()
        process.wait()
        if lifeline is not None:
            os.close(lifeline)
        for pipe in (process.stdin, process.stdout, log):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()

    def call(self, target: str, *args: Any, timeout_s: float | None = None, about: str | Path = "") -> Any:
        """Run `target` ("package.module:function") on `args` in the child and return its result.

        Args:
            target: an importable function; arguments and result must be picklable.
            timeout_s: seconds after which the child is killed; None waits for ever.
            about: the file that the call is about, for error messages.

        Raises:
            SlimsegError: the function raised it.
            RuntimeFailure: the function raised anything else, or the child crashed or ran out of time.
        """
        with self._lock:
            try:
                return self._call(target, args, timeout_s, str(about) or target.partition(":")[2])
            except SlimsegError:
                raise
            except BaseException:
                self.close()  # interrupted between request and answer: the next request would get this answer
                raise

    def _call(self, target: str, args: tuple[Any, ...], timeout_s: float | None, about: str) -> Any:
        request = pickle.dumps((target, args), pickle.HIGHEST_PROTOCOL)
        process = self._running()
        log_start = self._rewind_log()
        late = threading.Event()
        timer = _kill_after(process, timeout_s, late)
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            _send(process.stdin, request)
            kind, value = pickle.loads(_receive(process.stdout))
            self._printed = self._logged(log_start)
        except (OSError, EOFError) as error:
            raise RuntimeFailure(self._post_mortem(process, about, log_start, timeout_s, late)) from error
        finally:
            if timer:
                timer.cancel()
        if kind == "value":
            return value
        if kind == "slimseg":
            raise value
        raise RuntimeFailure(f"{about}: the native runtime refused: {value}{self._tail(log_start)}")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed with the child
            theirs, self._lifeline = os.pipe()
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "slimseg.runtimes.child", str(theirs)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._log,
                    env=_environment() | self._variables,
                    pass_fds=[theirs] if os.name == "posix" else [],
                )
            finally:
                os.close(theirs)
        return self._process

    def _rewind_log(self) -> int:
        assert self._log is not None
        size = os.fstat(self._log.fileno()).st_size
        if size > _LOG_LIMIT:
            self._log.truncate(0)
            self._log.seek(0)  # moves the child's position, too: it writes through the same open file
            return 0
        return size

    def _post_mortem(
        self,
        process: subprocess.Popen[bytes],
        about: str,
        log_start: int,
        timeout_s: float | None,
        late: threading.Event,
    ) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)  # wait for the child's own exit status, before close() kills it
        printed = self._tail(log_start)
        self.close()
        if late.is_set():
            return f"{about}: the native runtime did not answer within {timeout_s:g} s and was stopped"
        return f"{about}: the native runtime crashed ({_ending(process.returncode)}){printed}"

    def _tail(self, start: int) -> str:
        """What native code printed during this call, on one line, without messages about delegates and progress."""
        lines = self._logged(start).splitlines()
        text = _telling(line.strip() for line in lines if line.strip() and not _CHATTER.search(line))
        return f"; it printed: {text}" if text else ""

    def _logged(self, start: int) -> str:
        assert self._log is not None
        return os.pread(self._log.fileno(), _MOST_READ, start).decode(errors="replace")


def _telling(lines: Iterable[str]) -> str:
    """The most informative parts of a crash, on one line: the end of the log and the top of the stack after it."""
    lines = list(lines)
    start = next((number for number, line in enumerate(lines) if _STACK.search(line)), len(lines))
    log, stack = (" / ".join(part) for part in (lines[:start], lines[start:]))
    log = log if len(log) <= _QUOTED else f"...{log[-_QUOTED:]}"
    stack = stack if len(stack) <= _QUOTED else f"{stack[:_QUOTED]}..."
    return " / ".join(filter(None, (log, stack)))


def _environment() -> dict[str, str]:
    """The parent's environment variables and import path: the child must import the same slimseg."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONWARNINGS", "PYTHONPATH")}
    environment["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
    environment["PYTHONSAFEPATH"] = "1"  # do not import a stray numpy.py in the working directory
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
    environment["TMPDIR"] = str(scratch.root())
    return environment


def blamed(error: RuntimeFailure) -> RuntimeFailure | ModelError:
    """The error to raise for a user's file: a ModelError if the runtime refused the file or crashed on it."""
    return ModelError(str(error)) if _FILES_FAULT.search(str(error)) else error


def _kill_after(
    process: subprocess.Popen[bytes], timeout_s: float | None, late: threading.Event
) -> threading.Timer | None:
    if timeout_s is None:
        return None

    def kill() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(timeout_s, kill)
    timer.daemon = True
    timer.start()
    return timer


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit status {code}"


_shared: dict[tuple[str, int], Child] = {}


def shared(purpose: str = "", environment: Mapping[str, str] | None = None) -> Child:
    """The child process that all callers with the same `purpose` share; started by the first call, ended at exit.

    All runtimes share the child of the default purpose. Work that changes its process permanently, or that needs its
    own environment variables, has its own purpose.
    """
    key = purpose, os.getpid()  # a forked worker must not use its parent's pipes
    if key not in _shared:
        _shared[key] = Child(environment)
        atexit.register(_shared[key].close)
    return _shared[key]


def call(target: str, *args: Any, timeout_s: float | None = None, about: str | Path = "") -> Any:
    """`Child.call` in the shared child."""
    return shared().call(target, *args, timeout_s=timeout_s, about=about)


def _send(pipe: BinaryIO | Any, message: bytes) -> None:
    pipe.write(_LENGTH.pack(len(message)))
    pipe.write(message)
    pipe.flush()


def _receive(pipe: BinaryIO | Any) -> bytes:
    (length,) = _LENGTH.unpack(_exactly(pipe, _LENGTH.size))
    return _exactly(pipe, length)


def _exactly(pipe: BinaryIO | Any, count: int) -> bytes:
    data: bytes = pipe.read(count)
    if len(data) != count:
        raise EOFError("the other process is gone")
    return data


def _answer(request: bytes) -> bytes:
    """Run one request and return its answer: the result, or the exception that it raised."""
    try:
        target, args = pickle.loads(request)
        module, _, name = target.partition(":")
        value = getattr(importlib.import_module(module), name)(*args)
        return pickle.dumps(("value", value), pickle.HIGHEST_PROTOCOL)
    except SlimsegError as error:
        return pickle.dumps(("slimseg", error))
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        return pickle.dumps(("other", f"{type(error).__name__}: {first}"))


def _end_with_parent(lifeline: int) -> None:
    """Have the system end this process when the parent's end of the pipe `lifeline` closes, as when the parent dies.

    Nothing is ever written to the pipe. When it closes, the system sends SIGIO, which ends a process that does not
    handle the signal, even during a native call. A thread that waits for the pipe to close could not do that: it
    would need Python's lock, which the native call may hold.
    """
    with contextlib.suppress(ImportError, OSError):  # on Windows the child finishes its current call before it ends
        import fcntl

        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
        if select.select([lifeline], [], [], 0)[0]:
            os._exit(0)  # the parent died before the signal was set up


def _serve(lifeline: int) -> None:
    """The child's loop: answers requests until the parent closes the pipe, or dies."""
    _end_with_parent(lifeline)
    # A call that needs more memory fails in this process, instead of using up the memory of the whole machine.
    memory_bounds.limit_process("RLIMIT_DATA", MOST_MEMORY_BYTES)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    while True:
        try:
            request = _receive(requests)
        except EOFError:
            return
        _send(answers, _answer(request))


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
