"""How the time of a run is shared out, so that what comes late has its part reserved.

what needs no training    up to a quarter of the limit, the baselines included
planning                  up to two fifths of what is then left for plan and training
training                  all else
writing and the proof     the last tenth, or as long as a proof of so slow a network takes, up to a third

Where the time is tiny, each of these measures less: fewer images, fewer loads, fewer rounds.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from slimseg.report import units

UNTRAINED_SHARE = 0.2  # of the time from there to the end of training
PLANNING_SHARE = 0.4  # likewise
BASELINES_SHARE = 0.1  # of the limit, for timing the baselines
JUDGING_SHARE = 0.05  # of the limit, for running the original over the images that accuracy is judged on
PROOF_SHARE, MOST_FOR_PROOF = 0.1, 1 / 3  # of the limit
PROOF_RUNS, PROOF_STARTS_S = 200, 15.0  # of the original, that a proof takes; and of starting processes
AMPLE_S, FEWEST_IMAGES = 20 * 60.0, 12  # a limit from which on all images that help are used; the least there are
ENOUGH = 0.1  # of the steps of a first leg: training less than that recovers too little to be begun
_MINUTE = 60


@dataclass(frozen=True)
class TimePlan:
    """One run; `started` and what is returned as a time are of `time.monotonic()`."""

    started: float
    limit_s: float
    latency_s: float = 0.0  # of the original, once it is known

    @property
    def ends(self) -> float:
        return self.started + self.limit_s

    @property
    def proof_s(self) -> float:
        """Reserved for writing and the proof."""
        needed = PROOF_STARTS_S + PROOF_RUNS * self.latency_s
        return min(MOST_FOR_PROOF * self.limit_s, max(PROOF_SHARE * self.limit_s, needed))

    @property
    def baselines_until(self) -> float:
        """Of timing the baselines, if it begins now."""
        return time.monotonic() + BASELINES_SHARE * self.limit_s

    def some(self, images: int) -> int:
        """Fewer images where there is little time."""
        return max(FEWEST_IMAGES, round(images * min(1.0, self.limit_s / AMPLE_S)))

    def judged(self, image_s: float) -> int:
        """How many images there is time to judge by, where the original takes `image_s` for each."""
        return int(JUDGING_SHARE * self.limit_s / max(image_s, 1e-6))

    @property
    def training_until(self) -> float:
        return self.ends - self.proof_s

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
        needed = (training_s / (1 - PLANNING_SHARE) + passed) / (1 - PROOF_SHARE)
        return _MINUTE * math.ceil(needed / _MINUTE)

    def too_short(self, leg_s: float, left_s: float, enough: bool) -> str:
        """What the user is told where a leg of training takes longer than there is time for it."""
        follows = "it is cut short" if enough else "edits that need it are left out"
        limit, left = units.duration(self.limit_s), units.duration(left_s)
        return (
            f"Recovering accuracy takes about {units.duration(leg_s)}, and `time_limit_s` {limit} leaves {left} for "
            f"it: {follows}; `time_limit_s` {self.enough_s(leg_s) / _MINUTE:.0f}m would be enough"
        )
