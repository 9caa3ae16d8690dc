"""The order of deployed files: total, and never against one that is better in everything."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimseg.planning.choosing.budget import Budget
from slimseg.planning.choosing.ranking import NEARLY, Rank, rank

# few values, so that equals and bounds that are just met occur
DROPS = st.sampled_from([-2.0, 0.0, 0.3, 1.0, 1.4, 1.6, 5.0, 14.1])
SPEEDUPS = st.sampled_from([0.8, 1.0, 2.0, 3.9, 4.0, 16.0])
SIZES = st.sampled_from([1000, 4000, 4001, 30_000])
FILES = st.tuples(DROPS, SPEEDUPS, SIZES)
BUDGETS = st.builds(
    Budget,
    max_size_bytes=st.sampled_from([None, 1000, 4000]),
    min_speedup=st.sampled_from([None, 1.0, 4.0, 50.0]),
    max_drop=st.sampled_from([0.0, 1.0, 6.0]),
)
ORIGINAL = (0.0, 1.0, 30_000)


def holds(budget: Budget, file: tuple[float, float, int]) -> bool:
    drop, speedup, size = file
    fast = budget.min_speedup is None or speedup >= budget.min_speedup
    return drop <= budget.max_drop and fast and (budget.max_size_bytes is None or size <= budget.max_size_bytes)


def is_better(one: tuple[float, float, int], other: tuple[float, float, int]) -> bool:
    """In one of the three, and no worse in the others."""
    return one != other and one[0] <= other[0] and one[1] >= other[1] and one[2] <= other[2]


@settings(max_examples=300, deadline=None)
@given(BUDGETS, st.lists(FILES, min_size=1, max_size=6))
def test_the_best_is_worse_than_none(budget: Budget, files: list[tuple[float, float, int]]) -> None:
    files = [*files, ORIGINAL]
    best = max(files, key=lambda file: rank(budget, *file))
    assert not any(is_better(file, best) for file in files)
    within = [file for file in files if holds(budget, file)]
    if within:
        assert best in within
        assert best[1] == max(speedup for _, speedup, _ in within)
    assert best[0] <= budget.max_drop + NEARLY  # the original is always there


@settings(max_examples=300, deadline=None)
@given(BUDGETS, st.lists(FILES, min_size=3, max_size=3))
def test_the_order_is_total(budget: Budget, files: list[tuple[float, float, int]]) -> None:
    ranks: list[Rank] = sorted(rank(budget, *file) for file in files)
    assert ranks[0] <= ranks[1] <= ranks[2]
    assert ranks[0] <= ranks[2]
    assert len({rank(budget, *file) for file in files}) == len(set(files))


@pytest.mark.parametrize("drop", [1.001, 1.4])
def test_what_was_not_trained_may_lose_no_more_than_is_allowed(drop: float) -> None:
    budget = Budget(max_drop=1.0, min_speedup=4.0)
    slow = rank(budget, *ORIGINAL)
    assert rank(budget, drop, 16.0, 1000) > slow > rank(budget, drop, 16.0, 1000, ready=False)
    assert rank(budget, 0.9, 16.0, 1000, ready=False).holds
