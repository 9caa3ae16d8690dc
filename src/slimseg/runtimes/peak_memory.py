"""Resident memory of this process, and its peak since a moment of our choice (Linux; 0 where the system says none)."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """What the process took at most, in bytes, beyond what it held when this was made."""

    def __init__(self) -> None:
        with suppress(OSError):
            _CLEAR.write_text("5")  # the peak starts again from here
        self._before = _resident("VmRSS")

    def bytes(self) -> int:
        peak = _resident("VmHWM")
        return max(0, peak - self._before) if self._before else 0


def _resident(field: str) -> int:
    with suppress(OSError):
        found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0
