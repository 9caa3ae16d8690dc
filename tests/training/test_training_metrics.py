"""mIoU from one confusion matrix: against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from slimseg.training.metrics import Confusion


def mask(*rows: list[int]) -> np.ndarray:
    return np.array(rows, np.uint8)


def test_scores_of_a_case_worked_out_by_hand() -> None:
    confusion = Confusion(3)
    confusion.add(mask([0, 0, 1, 1]), mask([0, 1, 1, 255]))
    scores = confusion.scores()
    # class 0: 1 hit of 2 in the union; class 1: 1 of 2; class 2 does not occur; the ignored pixel counts nowhere
    assert scores.class_iou == (50.0, 50.0, None)
    assert scores.miou == 50.0
    assert scores.pixel_accuracy == pytest.approx(200 / 3)


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    confusion = Confusion(3)
    confusion.add(mask([0, 2]), mask([0, 0]))
    assert confusion.scores().class_iou == (50.0, None, 0.0)
    assert confusion.scores().miou == 25.0


def test_one_matrix_over_the_split_is_not_the_mean_of_the_images() -> None:
    together = Confusion(2)
    together.add(mask([0, 0, 0, 0]), mask([0, 0, 0, 0]))
    together.add(mask([0]), mask([1]))
    assert together.scores().class_iou == (80.0, 0.0)
    assert together.scores().miou == 40.0  # the mean over the images would be 50


def test_order_of_truth_and_prediction_does_not_touch_other_classes() -> None:
    confusion = Confusion(11)
    truth = np.random.default_rng(0).integers(0, 11, (20, 30)).astype(np.uint8)
    confusion.add(truth, truth)
    assert confusion.scores().miou == confusion.scores().pixel_accuracy == 100.0


def test_nothing_labelled_is_zero_not_a_crash() -> None:
    confusion = Confusion(2)
    confusion.add(mask([0, 1]), mask([255, 255]))
    assert confusion.scores().miou == 0.0
    assert confusion.scores().class_iou == (None, None)
