"""NCHW and NHWC, there and back."""

from __future__ import annotations

import numpy as np
import torch

from slimseg.graph.orders import TO_NCHW, TO_NHWC, nchw, nhwc, nhwc_shape


def test_there_and_back():
    images = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    assert nchw(images).shape == (2, 5, 3, 4)
    assert np.array_equal(nhwc(nchw(images)).numpy(), images)
    assert [TO_NCHW[dim] for dim in TO_NHWC] == [TO_NHWC[dim] for dim in TO_NCHW] == [0, 1, 2, 3]


def test_shapes_of_other_dimensions_stay():
    assert nhwc_shape((1, 5, 3, 4)) == (1, 3, 4, 5)
    assert nhwc_shape((1, 3, 4)) == (1, 3, 4)
    mask = torch.zeros(1, 3, 4)
    assert nhwc(mask) is mask
