"""Description and preprocessing survive JSON; nonsense is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimseg.errors import ModelError
from slimseg.graph.description import OUTPUT_KINDS, Description
from slimseg.graph.preprocessing import Preprocessing

numbers = st.floats(-1e3, 1e3)


@settings(deadline=None, derandomize=True)
@given(
    st.tuples(numbers, numbers, numbers),
    st.floats(1e-3, 1e3),
    st.lists(st.text(st.characters(exclude_categories=("C", "Z")), max_size=8), max_size=4),
    st.sampled_from(OUTPUT_KINDS),
)
def test_round_trip(mean, std, classes, kind):
    description = Description(Preprocessing.of(mean, std, "bgr"), tuple(classes), kind)
    assert Description.from_json(description.to_json()) == description


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "3", "null", '{"output_kind": "boxes"}', '{"output_kind": "mask", "preprocessing": 3}',
             '{"output_kind": "mask", "preprocessing": {"mean": "abc"}, "classes": []}'],
)  # fmt: skip
def test_nonsense_is_refused(text):
    with pytest.raises(ModelError):
        Description.from_json(text)
