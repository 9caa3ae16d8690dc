"""Which precision is deployed."""

from __future__ import annotations

import pytest

from slimseg.planning.baselines import deployed_precision
from slimseg.planning.budget import Budget


@pytest.mark.parametrize(
    ("budget", "gain", "precision"),
    [
        (Budget(), 3.0, "int8"),
        (Budget(), 0.5, "float32"),
        (Budget(max_size_bytes=500_000), 0.5, "int8"),
        (Budget(max_size_bytes=2_000_000), 0.5, "float32"),
        (Budget(needs="nothing"), 3.0, "float32"),
    ],
)
def test_int8_is_deployed_where_it_is_faster_or_nothing_else_is_small_enough(budget, gain, precision):
    assert deployed_precision(budget, gain, float_bytes=1_000_000) == precision
