"""Summary statistics of a time over all profiled runs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimseg.results import Statistics

Array = NDArray[Any]


def statistics(runs_us: Array) -> Statistics:
    """Statistics of one time per run, given in microseconds, in milliseconds.

    The standard deviation is the population's (divided by n), as in TFLite's own tool.
    """
    if not len(runs_us):
        return Statistics()
    return Statistics(
        first_ms=float(runs_us[0]) / 1e3,
        average_ms=float(np.clip(runs_us.mean(), runs_us.min(), runs_us.max())) / 1e3,  # the mean of equals is rounded
        min_ms=float(runs_us.min()) / 1e3,
        max_ms=float(runs_us.max()) / 1e3,
        std_ms=float(runs_us.std()) / 1e3,
        times_called=len(runs_us),
    )
