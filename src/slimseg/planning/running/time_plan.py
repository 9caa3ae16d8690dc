"""Divides the time limit of a run among its phases, so that the last phases have their time reserved.

untrained forms           up to a quarter of the limit, including the baselines
planning                  up to two fifths of the time that is then left for planning and training
training                  the rest
writing and the proof     the last tenth of the limit; more for a slow network, up to 45 per cent

If the limit is short, each phase measures less: fewer images, fewer loads, fewer rounds.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from slimseg.report import units

UNTRAINED_SHARE = 0.2  # share of the time from the start of this phase to the end of training
PLANNING_SHARE = 0.4  # share of the time from the start of this phase to the end of training
BASELINES_SHARE = 0.1  # share of the limit for timing the baselines
JUDGING_SHARE = 0.05  # share of the limit for running the original on the images that measure accuracy
PROOF_SHARE, MOST_FOR_PROOF = 0.1, 0.45  # least and largest share of the limit reserved for the proof
PROOF_RUNS, PROOF_STARTS_S = 200, 15.0  # time of a proof: so many runs of the original, plus seconds to start processes
AMPLE_S, FEWEST_IMAGES = 20 * 60.0, 12  # shorter limits use proportionally fewer images, but at least so many
ENOUGH = 0.1  # share of the first leg's steps; training is not begun if fewer are possible, as it recovers too little
_MINUTE = 60


@dataclass(frozen=True)
class TimePlan:
    """The time limits of one run. `started` and all `..._until` and `ends` are values of `time.monotonic()`."""

    started: float
    limit_s: float
    latency_s: float = 0.0  # latency of the original; 0 until it is measured

    @property
    def ends(self) -> float:
        return self.started + self.limit_s

    @property
    def proof_s(self) -> float:
        """Seconds reserved for writing the files and for the proof."""
        needed = PROOF_STARTS_S + PROOF_RUNS * self.latency_s
        return min(MOST_FOR_PROOF * self.limit_s, max(PROOF_SHARE * self.limit_s, needed))

    @property
    def baselines_until(self) -> float:
        """When timing of the baselines must end, if it begins now."""
        return time.monotonic() + BASELINES_SHARE * self.limit_s

    def some(self, images: int) -> int:
        """`images`, reduced in proportion if the limit is short."""
        return max(FEWEST_IMAGES, round(images * min(1.0, self.limit_s / AMPLE_S)))

    def judged(self, image_s: float) -> int:
        """Number of images for which there is time to measure accuracy, at `image_s` seconds for each."""
        return int(JUDGING_SHARE * self.limit_s / max(image_s, 1e-6))

    @property
    def training_until(self) -> float:
        return self.ends - self.proof_s

    @property
    def left_s(self) -> float:
        """Seconds until training has to end."""
        return max(0.0, self.training_until - time.monotonic())

    def untrained_until(self) -> float:
        """When the measurement of untrained forms must end, if it begins now."""
        return time.monotonic() + UNTRAINED_SHARE * self.left_s

    def planning_until(self) -> float:
        """When planning must end, if it begins now."""
        return time.monotonic() + PLANNING_SHARE * self.left_s

    @property
    def training_s(self) -> float:
        """Seconds that training has at least, if planning begins now."""
        return (1 - PLANNING_SHARE) * self.left_s

    def enough_s(self, training_s: float) -> float:
        """The time limit that leaves `training_s` seconds for training: in seconds, rounded up to whole minutes."""
        passed = time.monotonic() - self.started
        needed = (training_s / (1 - PLANNING_SHARE) + passed) / (1 - PROOF_SHARE)
        return _MINUTE * math.ceil(needed / _MINUTE)

    def too_short(self, leg_s: float, left_s: float, enough: bool) -> str:
        """The message for a leg of training that takes longer than the time left for it.

        Args:
            leg_s: seconds that the whole leg takes.
            left_s: seconds that are left for it.
            enough: whether a shortened leg is still worth starting.
        """
        follows = "it is shortened" if enough else "edits that need it are left out"
        limit, left = units.duration(self.limit_s), units.duration(left_s)
        return (
            f"Recovering accuracy takes about {units.duration(leg_s)}, and `time_limit_s` {limit} leaves {left} for "
            f"it: {follows}; `time_limit_s` {self.enough_s(leg_s) / _MINUTE:.0f}m would be enough"
        )
