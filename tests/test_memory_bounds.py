"""What is alive at once while a computation runs, step by step."""

from __future__ import annotations

from slimseg.memory_bounds import Step, bytes_at_once


def test_a_value_is_alive_from_the_step_that_makes_it_to_the_last_that_reads_it():
    steps = [
        Step("input", {"image": 1}, ()),
        Step("first", {"a": 10}, ("image",)),
        Step("second", {"b": 100}, ("image",)),
        Step("join", {"c": 1000}, ("a", "b")),
        Step("output", {}, ("c",)),
    ]
    assert bytes_at_once(steps) == [1, 11, 111, 1110, 1000]


def test_what_is_never_read_counts_where_it_is_made():
    assert bytes_at_once([Step("both", {"a": 10, "b": 1}, ()), Step("next", {"c": 5}, ("a",))]) == [11, 15]


def test_what_is_cropped_counts_while_the_step_works():
    cropped = Step("cropped", {"a": 10}, (), extra_bytes=90)
    assert cropped.made_bytes == 100
    assert bytes_at_once([cropped, Step("next", {"b": 1}, ("a",))]) == [100, 11]
