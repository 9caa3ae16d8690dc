"""Memory that training frees is kept for its next step instead of being given back to the system.

A step allocates hundreds of tensors of tens of megabytes and frees them again. glibc takes each of them from the
system and gives it back, and the system clears every page anew: more than half of the processor's time of a step of
training on a CPU (`benchmarks/allocation.py`), a third of that of `quantize --sensitivity`, whose page faults become a
fourteenth (camvid_unet, two images).
"""

from __future__ import annotations

import ctypes
import functools
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # malloc.h
_NEVER, _PAD_BYTES = -1, 64 << 20


@functools.cache
def keep_freed() -> bool:
    """Tell glibc's allocator to keep what this process frees; False where the C library is another."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False  # musl, for example
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _PAD_BYTES))
    return all(mallopt(name, value) == 1 for name, value in settings)
