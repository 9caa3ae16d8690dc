"""The integer programme against trying every set."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimseg.planning.choosing.choose import NEARLY, Option, choose
from slimseg.techniques import Settings, Site


@dataclass(frozen=True)
class Variant(Settings):
    name: str


def option(layers: str, ms: float, damage: float = 0.0, size: int = 0, variant: str = "") -> Option:
    """One letter, one layer."""
    return Option(Site("t", tuple(layers), layers[0], layers[-1], "images", "", Variant(variant)), ms, size, damage)


def allowed(options: tuple[Option, ...]) -> bool:
    layers = [layer for each in options for layer in each.site.layers]
    return len(layers) == len(set(layers))


def sets(options: list[Option]) -> list[tuple[Option, ...]]:
    return [chosen for count in range(len(options) + 1) for chosen in combinations(options, count) if allowed(chosen)]


def damage(chosen: list[Option] | tuple[Option, ...]) -> float:
    return sum(each.damage for each in chosen)


def saved(chosen: list[Option] | tuple[Option, ...]) -> float:
    return sum(each.saving_ms for each in chosen)


def test_nothing_to_choose_from() -> None:
    assert choose([], 1.0, None) == []
    assert choose([option("a", -1.0), option("b", 0.0)], 1.0, None) == []


def test_variants_of_a_layer_exclude_each_other() -> None:
    fast, mild = option("a", 3.0, 9.0, variant="1x1"), option("a", 2.0, 1.0, variant="3x3")
    assert choose([fast, mild], None, None) == [fast]
    assert choose([fast, mild], 1.5, None) == [mild]


def test_edits_that_share_one_layer_exclude_each_other() -> None:
    both, first, second = option("ab", 3.0), option("a", 2.0), option("b", 2.0)
    assert choose([both, first, second], None, None) == [first, second]


def test_the_least_damage_that_meets_the_target() -> None:
    options = [option("a", 5.0, 10.0), option("b", 3.0, 2.0), option("c", 2.5, 1.0)]
    assert choose(options, 5.0, None) == options[1:]
    assert choose(options, 2.0, None) == options[2:]
    assert choose(options, 0.0, None) == []  # there already


def test_bytes_may_be_bought_with_time() -> None:
    small = option("a", -0.1, 1.0, size=1000)
    assert choose([small], None, 500) == [small]
    assert choose([small], None, None) == []


def test_a_target_out_of_reach_saves_the_most() -> None:
    options = [option("a", 5.0, 50.0), option("a", 4.0, 0.0, variant="2"), option("b", 1.0, 2.0)]
    assert choose(options, 100.0, None) == [options[0], options[2]]


OPTIONS = st.lists(
    st.builds(
        option,
        st.sampled_from(["a", "b", "c", "ab", "bc"]),
        st.floats(0.1, 10).map(lambda value: round(value, 1)),
        st.floats(0, 30).map(lambda value: round(value, 1)),
        st.integers(-50, 200),
    ),
    max_size=7,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(OPTIONS, st.floats(0.5, 15), st.integers(1, 300) | st.none())
def test_as_good_as_trying_every_set(options: list[Option], need_ms: float, need_bytes: int | None) -> None:
    chosen = choose(options, need_ms, need_bytes)
    assert allowed(tuple(chosen))
    reaching = [
        each
        for each in sets(options)
        if saved(each) >= need_ms and sum(one.saving_bytes for one in each) >= (need_bytes or -(10**9))
    ]
    if reaching:
        assert saved(chosen) >= need_ms - 1e-5
        assert sum(each.saving_bytes for each in chosen) >= (need_bytes or -(10**9)) - 1e-3
        # each edit costs 0.001 on its own, which may outweigh a smaller difference in damage
        assert damage(chosen) <= min(damage(each) for each in reaching) + 0.01
    elif need_bytes is None:
        # the last tenth may cost more than all before
        assert saved(chosen) >= max(saved(each) for each in sets(options)) * 0.98 * NEARLY - 1e-5


def test_time_saved_decides_before_damage() -> None:
    options = [option("a", 1.0, 100.0), option("a", 0.5, 0.0, variant="2")]
    assert saved(choose(options, None, None)) == pytest.approx(1.0)


def test_the_last_tenth_is_left_where_it_costs_much() -> None:
    cheap, dear = option("a", 9.5, 1.0), option("b", 0.5, 50.0)
    assert choose([cheap, dear], None, None) == [cheap]
    assert choose([cheap, dear], 100.0, None) == [cheap]  # out of reach: all of it would not do either
    assert choose([cheap, dear], 9.8, None) == [cheap, dear]  # within reach: what was asked for
    worth = option("b", 1.5, 50.0)
    assert choose([cheap, worth], None, None) == [cheap, worth]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(OPTIONS)
def test_nearly_all_is_saved_with_the_least_damage_that_this_takes(options: list[Option]) -> None:
    chosen = choose(options, None, None)
    assert allowed(tuple(chosen))
    most = max(saved(each) for each in sets(options))
    assert saved(chosen) >= NEARLY * most * 0.98 - 1e-5
    enough = [each for each in sets(options) if saved(each) >= NEARLY * most]
    assert damage(chosen) <= min(damage(each) for each in enough) + 0.01
