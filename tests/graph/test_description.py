"""Description and preprocessing survive JSON; nonsense is refused."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimseg.errors import ModelError
from slimseg.graph.description import OUTPUT_KINDS, Description
from slimseg.graph.preprocessing import Preprocessing

BIDI = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
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


# Letters that a terminal obeys or that turn the direction of writing, among any others.
hostile = st.text(
    st.characters() | st.sampled_from("\x00\x07\x1b\x7f\x9b\u061c\u200b\u200e\u2028\u202e\u2066\u2069\ufeff")
)


@settings(deadline=None, derandomize=True)
@given(st.lists(hostile, max_size=4))
def test_class_names_are_read_without_what_a_terminal_obeys(classes):
    text = Description(classes=tuple(classes)).to_json()
    read = Description.from_json(text)
    assert len(read.classes) == len(classes)
    for name, raw in zip(read.classes, classes, strict=True):
        assert name.isprintable()
        assert not {unicodedata.category(letter) for letter in name} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
        assert not any(unicodedata.bidirectional(letter) in BIDI for letter in name)
        assert name == raw or not raw.isprintable(), "a name that can be shown stays as it is"
        kept = [letter for letter in raw if letter.isprintable() and not letter.isspace()]
        assert [letter for letter in name if letter not in "? "] == [letter for letter in kept if letter != "?"]
    assert Description.from_json(read.to_json()) == read


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "3", "null", '{"output_kind": "boxes"}', '{"output_kind": "mask", "preprocessing": 3}',
             '{"output_kind": "mask", "preprocessing": {"mean": "abc"}, "classes": []}'],
)  # fmt: skip
def test_nonsense_is_refused(text):
    with pytest.raises(ModelError):
        Description.from_json(text)
