"""Mean and std in whatever units users have them."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

import slimseg
from slimseg.errors import ModelError
from slimseg.graph.description import Description
from slimseg.graph.preprocessing import Preprocessing, in_bytes

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("mean", "std", "mean_in_bytes", "std_in_bytes"),
    [
        (IMAGENET_MEAN, IMAGENET_STD, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
        (0.5, 0.5, (127.5,) * 3, (127.5,) * 3),
        (0.5, 1, (127.5,) * 3, (255,) * 3),
        (IMAGENET_MEAN, None, (123.675, 116.28, 103.53), None),
        (0.5, 255, (127.5,) * 3, (255,) * 3),
        (None, 0.5, None, (127.5,) * 3),
        (0, 0.5, (0,) * 3, (127.5,) * 3),
        ((0, 0.5, 1), (1, 0.5, 0.25), (0, 127.5, 255), (255, 127.5, 63.75)),
    ],
)
def test_units_of_0_to_1_become_bytes_with_a_note(mean, std, mean_in_bytes, std_in_bytes) -> None:
    means, stds, note = in_bytes(mean, std)
    assert means == (mean_in_bytes if mean_in_bytes is None else pytest.approx(mean_in_bytes))
    assert stds == (std_in_bytes if std_in_bytes is None else pytest.approx(std_in_bytes))
    assert "images in [0, 1]; in bytes they are" in note


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (None, None), (127, 128), (127.5, 127.5), ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4)), (0, 255), (None, 58),
        ((103.9, 116.8, 123.7), 1), ((1, 2, 3), 4), (0, 2), (-128, 1),
    ],
)  # fmt: skip
def test_bytes_stay_without_a_word(mean, std) -> None:
    means, stds, note = in_bytes(mean, std)
    assert Preprocessing.of(means, stds) == Preprocessing.of(mean, std)
    assert note == ""


def test_bytes_as_they_are_stay_with_a_word() -> None:
    means, stds, note = in_bytes(0, 1)
    assert Preprocessing.of(means, stds) == Preprocessing((0, 0, 0), (1, 1, 1))
    assert note == "std 1: the network gets unchanged bytes 0-255; for [0, 1] give std 255"


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [
        (IMAGENET_MEAN, (58.4, 57.1, 57.4), "differ in unit"),
        ((123.7, 116.3, 103.5), IMAGENET_STD, "differ in unit"),
        (0.5, 127.5, "differ in unit"),
        (0, 1 / 255, "looks like a factor, but bytes are divided by std: give its inverse, 255"),
        ((103.9, 116.8, 123.7), 0.017, "give its inverse, 58.8"),
    ],
)
def test_what_fits_no_unit_is_one_sentence(mean, std, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        in_bytes(mean, std)


def test_both_units_are_one_network() -> None:
    """The same numbers reach the network, whatever unit they were given in."""
    layer = nn.Conv2d(3, 2, 1)
    in_unit = slimseg.load(layer, (8, 8), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    bytes_ = slimseg.load(
        layer, (8, 8), mean=[255 * each for each in IMAGENET_MEAN], std=[255 * each for each in IMAGENET_STD]
    )
    assert np.allclose(in_unit.description.preprocessing.mean, bytes_.description.preprocessing.mean)
    assert np.allclose(in_unit.description.preprocessing.std, bytes_.description.preprocessing.std)
    assert len(in_unit.notes) == 1
    assert bytes_.notes == ()


def test_what_a_file_says_of_itself_is_never_converted() -> None:
    described = Description(Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
    assert Description.from_json(described.to_json()) == described


def test_a_student_is_built_with_either() -> None:
    graph = slimseg.models.build(2, (32, 32), width=0.25, mean=0.5, std=0.5)
    assert graph.description.preprocessing == Preprocessing.of(127.5, 127.5)
    assert "images in [0, 1]" in graph.notes[0]
