"""Masks from reduced scores are those of the whole bilinear resize."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from slimseg.runtimes import mask


def patches(seed: int, shape: tuple[int, int, int], spots: int) -> np.ndarray:
    """Smooth int8 scores: `spots` squared places in each class, so that most neighbours agree."""
    coarse = np.random.default_rng(seed).standard_normal((1, shape[2], spots, spots))
    planes = F.interpolate(torch.from_numpy(coarse), shape[:2], mode="bicubic")[0].permute(1, 2, 0).numpy()
    return np.clip(np.rint(40 * planes), -128, 127).astype(np.int8)


def whole(scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    planes = torch.from_numpy(scores.astype(np.float64)).permute(2, 0, 1)[None]
    return F.interpolate(planes, size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0).numpy()


SIDE = st.integers(1, 23)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 99),
    st.tuples(SIDE, SIDE),
    st.tuples(SIDE, SIDE),
    st.integers(2, 12),
    st.integers(1, 9),
    st.booleans(),
)
def test_equal_to_the_argmax_of_the_whole(
    seed: int, old: tuple[int, int], new: tuple[int, int], classes: int, spots: int, integers: bool
) -> None:
    scores = patches(seed, (*old, classes), spots)
    expected = whole(scores, new)
    got = mask.bilinear_argmax(scores if integers else scores.astype(np.float32), new)
    assert got.shape == new
    assert got.dtype == np.uint8
    chosen = np.take_along_axis(expected, got[..., None].astype(np.int64), -1)[..., 0]
    assert np.abs(expected.max(-1) - chosen).max() < 1e-3  # the largest, or one that is equal up to rounding


@pytest.mark.parametrize("shape", [(6, 9, 4), (1, 9, 4), (6, 1, 4), (6, 9, 1)])
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_planes_are_compared_like_rows(shape: tuple[int, int, int], dtype: str) -> None:
    rows = np.random.default_rng(0).integers(-3, 3, shape).astype(dtype)
    planes = np.ascontiguousarray(rows.transpose(2, 0, 1)).transpose(1, 2, 0)
    for scores in (rows, planes):
        assert np.array_equal(mask.largest(scores), rows.argmax(-1)), "of equal ones the first"
    assert np.array_equal(mask.bilinear_argmax(rows, (24, 27)), mask.bilinear_argmax(planes, (24, 27)))


def test_only_borders_are_worked_out(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = patches(0, (48, 64, 5), 4)
    counts = []
    inner = mask._mixed
    monkeypatch.setattr(mask, "_mixed", lambda *given: counts.append(given[3].size) or inner(*given))
    mask.bilinear_argmax(scores, (192, 256))
    assert 0 < counts[0] < 0.2 * 192 * 256


def test_the_scores_are_left_alone() -> None:
    scores = patches(1, (12, 16, 5), 3)
    before = scores.copy()
    mask.bilinear_argmax(scores, (48, 64))
    assert np.array_equal(scores, before)
