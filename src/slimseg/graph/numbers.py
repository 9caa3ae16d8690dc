"""Numbers of files, which store them in 32 bits, as their authors wrote them."""

from __future__ import annotations

import numpy as np


def as_written(stored: float) -> float:
    """The shortest decimal number that is stored as the same 32 bits: 1e-05 for 9.999999747378752e-06."""
    return float(str(np.float32(stored)))
