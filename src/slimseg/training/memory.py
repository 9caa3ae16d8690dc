"""Keep the memory that a training step frees for the next step, instead of returning it to the system.

A step allocates hundreds of tensors of tens of megabytes and frees them again. By default glibc gets each of them from
the system and returns it, and the system clears every page again. That takes more than half of the processor time of a
training step on a CPU (`benchmarks/allocation.py`), and a third of that of `quantize --sensitivity`, whose page faults
fall to a fourteenth here (camvid_unet, two images).
"""

from __future__ import annotations

import ctypes
import functools
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # malloc.h
_NEVER, _PAD_BYTES = -1, 64 << 20


@functools.cache
def keep_freed() -> bool:
    """Set glibc's allocator to keep the memory that this process frees; False if the C library is not glibc."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False  # musl, for example
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _PAD_BYTES))
    return all(mallopt(name, value) == 1 for name, value in settings)
