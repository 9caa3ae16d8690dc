"""Growth of this process's resident memory up to its peak since a chosen moment (Linux; 0 on other systems)."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Peak resident memory in bytes, less the resident memory at the time this object was created."""

    def __init__(self) -> None:
        with suppress(OSError):
            _CLEAR.write_text("5")  # resets the system's record of the peak
        self._before = _resident("VmRSS")

    def bytes(self) -> int:
        peak = _resident("VmHWM")
        return max(0, peak - self._before) if self._before else 0


def _resident(field: str) -> int:
    with suppress(OSError):
        found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0
