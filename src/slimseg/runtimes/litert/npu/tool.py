"""Runs LiteRT's `apply_plugin_main`, which loads a vendor's compiler, as a process of its own with limits."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from slimseg.disk import scratch
from slimseg.errors import RuntimeFailure
from slimseg.runtimes.child import MOST_MEMORY_BYTES
from slimseg.runtimes.litert.npu.libraries import Libraries

LONGEST_S = 1800.0  # compiling the largest networks of `benchmarks` takes minutes
_MOST_PRINTED = 64 << 20  # most bytes of its output that are read
_QUOTED = 300  # most characters of its output that an error quotes


@dataclass(frozen=True)
class Printed:
    """What a run printed, and how long it took."""

    out: str  # messages of Qualcomm's libraries
    err: str  # messages of LiteRT's tool and plugin
    status: int  # exit status
    seconds: float


def run(
    libraries: Libraries, command: str, path: Path, soc: str, out: Path, *options: str, timeout_s: float = LONGEST_S
) -> Printed:
    """Run one command of the tool on a `.tflite`.

    Args:
        command: "partition" or "apply".
        soc: name of the chip, as the plugin knows it.
        out: the file to write.
        options: further options of the tool.

    Raises:
        RuntimeFailure: it crashed or ran out of time.
    """
    arguments = [
        *(str(libraries.tool), f"--cmd={command}", f"--model={path.absolute()}", f"--o={out.absolute()}"),
        *("--soc_manufacturer=Qualcomm", f"--soc_model={soc}", f"--libs={libraries.plugin.parent}", *options),
    ]
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries.search_path, "TMPDIR": str(scratch.root())}
    with scratch.folder() as folder:
        began = time.monotonic()
        status = _run(arguments, environment, folder, timeout_s, path.name)
        seconds = time.monotonic() - began
        printed = Printed(_text(folder / "out"), _text(folder / "err"), status, seconds)
    if status < 0:
        ending = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        raise RuntimeFailure(f"{path.name}: Qualcomm's compiler crashed ({ending}) for {soc}{last_error(printed)}")
    return printed


def last_error(printed: Printed) -> str:
    """The last error that it printed, as the end of a sentence; empty if there is none."""
    marked = [line for line in (printed.out + "\n" + printed.err).splitlines() if "ERROR" in line or "<E>" in line]
    return f"; it printed: {marked[-1].strip()[-_QUOTED:]}" if marked else ""


def _run(arguments: list[str], environment: dict[str, str], folder: Path, timeout_s: float, about: str) -> int:
    """Exit status of a process whose output goes to the files `out` and `err` of `folder`."""
    theirs, ours = os.pipe()
    try:
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
                cwd=folder,
                pass_fds=[theirs],
            )
        _bind(process.pid, theirs)
    except OSError as error:
        os.close(ours)
        raise RuntimeFailure(
            f"{about}: LiteRT's {Path(arguments[0]).name} does not start ({error.strerror}): reinstall ai-edge-litert"
        ) from error
    finally:
        os.close(theirs)
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired as error:
        raise RuntimeFailure(
            f"{about}: Qualcomm's compiler did not finish within {timeout_s:g} s and was stopped"
        ) from error
    finally:
        os.close(ours)
        process.kill()
        process.wait()


def _bind(pid: int, lifeline: int) -> None:
    """Limit the process's memory, and have the system end it when the other end of `lifeline` closes.

    That happens when slimseg ends, however it ends: see `child._end_with_parent`. The signal's action is the default
    one in a program that does not know it, which is to end.
    """
    import fcntl
    import resource

    with contextlib.suppress(OSError, ProcessLookupError):  # it has ended already
        resource.prlimit(pid, resource.RLIMIT_DATA, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, pid)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _text(path: Path) -> str:
    with path.open("rb") as stream:
        return stream.read(_MOST_PRINTED).decode(errors="replace")
