"""How the time of a run is shared out, so that what comes late has its part reserved.

what needs no training    up to a quarter of the limit, the baselines included
planning                  up to two fifths of what is then left for plan and training
training                  all else, until nine tenths of the limit
writing and the proof     the last tenth
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from slimseg.report import units

UNTRAINED_SHARE = 0.2  # of the time from there to the end of training
PLANNING_SHARE = 0.4  # likewise
TRAINING_ENDS = 0.9  # of the limit
ENOUGH = 0.1  # of the steps of a first leg: training less than that recovers too little to be begun
_MINUTE = 60


@dataclass(frozen=True)
class TimePlan:
    """One run; `started` and what is returned as a time are of `time.monotonic()`."""

    started: float
    limit_s: float

    @property
    def training_until(self) -> float:
        return self.started + TRAINING_ENDS * self.limit_s

    @property
    def left_s(self) -> float:
        """Until training has to end."""
        return max(0.0, self.training_until - time.monotonic())

    def untrained_until(self) -> float:
        """Of what needs no training, if it begins now."""
        return time.monotonic() + UNTRAINED_SHARE * self.left_s

    def planning_until(self) -> float:
        """Of a plan that begins now."""
        return time.monotonic() + PLANNING_SHARE * self.left_s

    @property
    def training_s(self) -> float:
        """What training is sure of, if planning begins now."""
        return (1 - PLANNING_SHARE) * self.left_s

    def enough_s(self, training_s: float) -> float:
        """A limit, in whole minutes, that leaves so much for training."""
        passed = time.monotonic() - self.started
        needed = (training_s / (1 - PLANNING_SHARE) + passed) / TRAINING_ENDS
        return _MINUTE * math.ceil(needed / _MINUTE)

    def too_short(self, leg_s: float, left_s: float, enough: bool) -> str:
        """What the user is told where a leg of training takes longer than there is time for it."""
        follows = "it is cut short" if enough else "edits that need it are left out"
        return (
            f"Recovering accuracy takes about {units.duration(leg_s)}, and --time-limit {units.duration(self.limit_s)} "
            f"leaves {units.duration(left_s)} for it: {follows}; --time-limit {self.enough_s(leg_s) / _MINUTE:.0f}m "
            "would be enough"
        )
