"""Workers under a watchdog: one that dies or takes too long is replaced, and the mutant that it had is noted."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fuzzing.trials import Outcome

CPU_S = 10.0  # of the processor, for one mutant
WALL_S = 90.0  # for one mutant, on however busy a machine
START_S = 180.0
_TICKS = os.sysconf("SC_CLK_TCK")


def search_path() -> str:
    """Where a new process finds slimseg and these files."""
    return os.pathsep.join([str(Path(__file__).parents[1]), *(entry for entry in sys.path if entry)])


class Worker:
    """One process with a folder of its own."""

    def __init__(self, folder: Path, seed: int, how: str, cpu_s: float = CPU_S) -> None:
        self.arguments = [sys.executable, "-m", "fuzzing.worker", str(folder), str(seed), how]
        self.cpu_s = cpu_s
        self.process: subprocess.Popen[str] | None = None

    def close(self) -> None:
        """End the process and what it started."""
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its own session: itself and its children
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # what was still to be written to it
                    if pipe is not None:
                        pipe.close()

    def tried(self, name: str) -> dict[str, Any]:
        """What became of one mutant, as `Outcome` in JSON; "signal" or "hang" where the process had to be replaced."""
        process = self._running()
        assert process.stdin is not None
        before_s = self._used_s()
        process.stdin.write(f"{name}\n")
        process.stdin.flush()
        end, line = time.monotonic() + WALL_S, ""
        while not (line := self._line(1.0)):
            used_s = self._used_s() - before_s
            if process.poll() is not None:
                return self._lost(name, "signal", f"ended with {process.returncode}", used_s)
            if used_s > self.cpu_s or time.monotonic() > end:
                return self._lost(name, "hang", f"{used_s:.0f} s of the processor", used_s)
        found: dict[str, Any] = json.loads(line)
        return found

    def _lost(self, name: str, kind: str, said: str, used_s: float) -> dict[str, Any]:
        self.close()
        return asdict(Outcome(name, kind, said, used_s, 0, 0))

    def _running(self) -> subprocess.Popen[str]:
        if self.process is None:
            self.process = subprocess.Popen(
                self.arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env={**os.environ, "PYTHONPATH": search_path()}, start_new_session=True,
            )  # fmt: skip
            if not self._line(START_S):
                raise RuntimeError("a worker did not start")
        return self.process

    def _line(self, seconds: float) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        return self.process.stdout.readline() if ready else ""

    def _used_s(self) -> float:
        """Of the processor, by the process and by children that have ended."""
        assert self.process is not None
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return sum(int(field) for field in fields[11:15]) / _TICKS


def campaign(names: Iterable[str], folder: Path, seed: int, how: str, cpu_s: float = CPU_S) -> Iterator[dict[str, Any]]:
    """Every mutant's outcome, in order, by one worker after another."""
    worker = Worker(folder, seed, how, cpu_s)
    try:
        for name in names:
            yield worker.tried(name)
    finally:
        worker.close()
