"""Makers without a public compiler: their lists, said to be lists."""

from __future__ import annotations

import numpy as np
import pytest

from slimseg.errors import Unsupported
from slimseg.runtimes import registry


def processor(maker):
    (found,) = registry.processors(registry.DEFAULT, f"npu:{maker}")
    return found


@pytest.mark.parametrize("maker", ["mediatek", "tensor", "samsung"])
def test_a_verdict_by_a_list_says_so(maker, tiny, broken_up):
    npu = processor(maker)
    whole = npu.place(tiny)
    assert whole.is_whole
    assert not whole.is_own_verdict
    assert "2026-08-21" in whole.judge
    assert "google-ai-edge/LiteRT" in whole.judge
    parted = npu.place(broken_up)
    assert [layer.name for layer in parted.refused] == ["strange"]
    assert (parted.partitions, parted.copies) == (2, 2)
    assert "not public" in npu.missing()
    with pytest.raises(Unsupported, match="cannot compute on this machine"):
        npu.predict(tiny, np.zeros((1, 32, 32, 4), np.float32))


def test_the_lists_differ_in_argmax(tiny_mask):
    assert [processor(maker).place(tiny_mask).is_whole for maker in ("mediatek", "tensor", "samsung")] == [
        *(False, True, True)
    ]
    assert processor("mediatek").place(tiny_mask).refused[0].reason == (
        "ARG_MAX is not on the list of operators that it takes"
    )


@pytest.mark.parametrize("op", ["DEPTH_TO_SPACE", "SPACE_TO_DEPTH", "ELU", "MIRROR_PAD", "SPACE_TO_BATCH_ND", "RELU6"])
def test_mediatek_takes_no(op):
    assert not processor("mediatek").takes(op)
    assert processor("mediatek").takes("TRANSPOSE_CONV")
