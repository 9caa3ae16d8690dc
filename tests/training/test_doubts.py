"""Networks that make no sense on their images are told from poor ones, with the reason where it shows."""

from __future__ import annotations

import re

import numpy as np
import pytest

from slimseg.graph.description import Description
from slimseg.graph.preprocessing import Preprocessing
from slimseg.training.doubts import Seen, guessing, kappa

NAMES = ("sky", "road", "car")
DESCRIPTION = Description(Preprocessing.of(127, 128), NAMES)


def doubts(mask: np.ndarray, truth: np.ndarray | None, classes: int = 3) -> tuple[str, ...]:
    seen = Seen(classes)
    seen.add(mask.astype(np.uint8), None if truth is None else truth.astype(np.uint8))
    return seen.doubts(DESCRIPTION, NAMES)


@pytest.fixture
def truth() -> np.ndarray:
    """Half sky, three tenths road, a fifth cars."""
    return np.repeat([0, 1, 2], [500, 300, 200]).reshape(10, 100)


def test_a_network_that_sees_is_not_doubted(truth: np.ndarray) -> None:
    assert doubts(truth, truth) == ()
    assert doubts(truth, None) == ()


def test_a_poor_network_is_not_doubted_either(truth: np.ndarray) -> None:
    random = np.random.default_rng(0)
    poor = np.where(random.random(truth.shape) < 0.4, truth, random.integers(0, 3, truth.shape))
    assert doubts(poor, truth) == ()


def test_small_things_in_a_large_background() -> None:
    """Where one class is 97%, a network may find the rest with less accuracy than that, and is worth something."""
    truth = np.zeros((100, 100), int)
    truth[:3] = 1
    found = truth.copy()
    found[3:8] = 1  # 5% of the pixels are wrong
    assert doubts(found, truth, 2) == ()


def test_one_class_for_everything(truth: np.ndarray) -> None:
    (said,) = doubts(np.full_like(truth, 1), truth)
    assert (
        "predicts road for every pixel: check `mean` (127,127,127 now), `std` (128,128,128), `channel_order` (rgb)"
        in said
    )
    (said,) = doubts(np.full_like(truth, 2), None)
    assert "predicts car for every pixel: check `mean`" in said


def test_no_better_than_guessing(truth: np.ndarray) -> None:
    drawn = np.random.default_rng(1).permutation(truth.ravel()).reshape(truth.shape)
    (said,) = doubts(drawn, truth)
    assert "while guessing reaches" in said
    assert "check `mean`" in said


def test_the_guesses() -> None:
    assert guessing(np.array([[50.0, 0], [50, 0]])) == pytest.approx(25)  # half of the pixels, one class of two
    assert guessing(np.array([[25.0, 25], [25, 25]])) == pytest.approx(100 / 3)  # a quarter of three quarters, twice


def test_hardly_better_than_guessing(truth: np.ndarray) -> None:
    random = np.random.default_rng(2)
    found = np.where(random.random(truth.shape) < 0.2, truth, random.permutation(truth.ravel()).reshape(truth.shape))
    (said,) = doubts(found, truth)
    assert re.search(r"Cohen's kappa 0\.[12]\d\)", said)


def test_agreement_beyond_chance() -> None:
    """Of 50 pixels 35 agree, and 25 would by chance: 10 of the 25 that are left."""
    assert kappa(np.array([[20.0, 5], [10, 15]])) == pytest.approx(0.4)


def test_classes_in_another_order_are_named(truth: np.ndarray) -> None:
    moved = (truth + 1) % 3
    (said,) = doubts(moved, truth)
    assert "100% of the pixels are right once classes are renumbered: sky in the masks is road in the network" in said


def test_two_classes_swapped() -> None:
    truth = np.zeros((10, 10), int)
    truth[:, 6:] = 1
    (said,) = doubts(1 - truth, truth, 2)
    assert "sky in the masks is road in the network" in said


def test_masks_of_one_class_say_little(truth: np.ndarray) -> None:
    (said,) = doubts(truth, np.zeros_like(truth))
    assert said.startswith("the masks contain only sky or ignored pixels")


def test_masks_that_are_ignored_throughout(truth: np.ndarray) -> None:
    (said,) = doubts(truth, np.full_like(truth, 255))
    assert said == "every pixel of the masks is 255, which is ignored: give masks of class indices"
