"""Sizes, times, and budgets that no file could meet."""

from __future__ import annotations

import math
from typing import Any

import pytest

from slimseg.errors import BudgetError
from slimseg.planning.choosing.budget import Budget, parse_size, parse_time


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4MB", 4_000_000),
        ("900 kB", 900_000),
        ("1.5MiB", 1_572_864),
        ("4000000", 4_000_000),
        (" 2gb ", 2 * 10**9),
        ("5b", 5),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "4 apples", "-4MB", "4MB 5MB", "nan", "1e6", "4,5MB"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(BudgetError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(("text", "seconds"), [("45m", 2700), ("90s", 90), ("1h", 3600), ("600", 600), ("1.5m", 90)])
def test_times(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "soon", "-1m", "1d", "1h30m", "inf"])
def test_no_times(text: str) -> None:
    with pytest.raises(BudgetError, match="is not a time"):
        parse_time(text)


@pytest.mark.parametrize(
    ("bounds", "named"),
    [
        ({"max_size_bytes": 10}, "`max_size_bytes`"),
        ({"max_size_bytes": 0}, "`max_size_bytes`"),
        ({"min_speedup": 0.5}, "`min_speedup`"),
        ({"min_speedup": -3.0}, "`min_speedup`"),
        ({"min_speedup": math.inf}, "`min_speedup`"),
        ({"min_speedup": math.nan}, "`min_speedup`"),
        ({"max_drop": -0.1}, "`max_drop`"),
        ({"max_drop": 101.0}, "`max_drop`"),
        ({"max_drop": math.nan}, "`max_drop`"),
        ({"needs": "everything"}, "`needs`"),
        ({"head": "heatmap"}, "`head`"),
        ({"time_limit_s": 5.0}, "`time_limit_s`"),
        ({"time_limit_s": math.nan}, "`time_limit_s`"),
        ({"needs": "nothing", "min_speedup": 16.0}, "contradicts `needs` nothing"),
    ],
)
def test_contradictions_are_one_sentence(bounds: dict[str, Any], named: str) -> None:
    with pytest.raises(BudgetError) as caught:
        Budget(**bounds)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_edits_may_ask_for() -> None:
    assert [Budget(needs="nothing").allows(needs) for needs in ("nothing", "images", "labels")] == [True, False, False]
    assert [Budget(needs="images").allows(needs) for needs in ("nothing", "images", "labels")] == [True, True, False]
    assert [Budget().allows(needs) for needs in ("nothing", "images", "labels")] == [True, True, True]
