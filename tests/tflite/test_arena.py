"""Tensors that need absurd amounts of memory are refused before LiteRT takes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as tflite
from tflite_bombs import built

from slimseg.errors import ModelError
from slimseg.runtimes.litert.profiling import profiler
from slimseg.tflite import file
from slimseg.tflite.schema import ModelBuilder

Op, Options = tflite.BuiltinOperator, tflite.BuiltinOptions


def resized(builder: ModelBuilder, value: int, side: int) -> int:
    size = builder.constant(f"size {side}", np.asarray([side, side], np.int32))
    target = builder.tensor(f"at {side}", (1, side, side, 4))
    options = tflite.ResizeNearestNeighborOptionsT(), Options.ResizeNearestNeighborOptions
    builder.operator(Op.RESIZE_NEAREST_NEIGHBOR, (value, size), target, *options)
    return target


def one_after_another(count: int, side: int) -> Callable[[ModelBuilder, int], int]:
    """Values of `side` pixels, each made of a small one: never more than two are alive."""

    def add(builder: ModelBuilder, value: int) -> int:
        for _ in range(count):
            value = resized(builder, resized(builder, value, side), 8)
        return value

    return add


def together(count: int, side: int) -> Callable[[ModelBuilder, int], int]:
    """All are made before the first is read."""

    def add(builder: ModelBuilder, value: int) -> int:
        target = builder.tensor("sum", (1, side, side, 4))
        values = [resized(builder, value, side) for _ in range(count)]
        builder.operator(Op.ADD_N, values, target, tflite.AddNOptionsT(), Options.AddNOptions)
        return target

    return add


@pytest.mark.parametrize(
    ("add", "shape", "said"),
    [
        (
            one_after_another(1, 30_000),
            (1, 2048, 2048, 3),
            "14.5 GB of memory for one image at the operator RESIZE_NEAREST_NEIGH",
        ),
        (
            together(12, 5_000),
            (1, 2048, 2048, 3),
            "GB of memory for one image at the operator RESIZE_NEAREST_NEIGHBOR: use a sm",
        ),
        (
            together(2, 4_000),
            (1, 8, 8, 4),
            "0.5 GB of memory for an image of 8x8 pixels at the operator RESIZE_NEAREST_NEIGHBO",
        ),
    ],
)
def test_what_is_refused(
    add: Callable[[ModelBuilder, int], int], shape: tuple[int, ...], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "bomb.tflite"
    built(path, add, shape)
    for reads in (file.read, profiler.profile):
        with pytest.raises(ModelError) as caught:
            reads(path)
        assert said in str(caught.value)
        assert str(path) in str(caught.value)


def test_what_is_made_and_dropped_is_not_added_up(tmp_path: Path) -> None:
    path = tmp_path / "network.tflite"
    built(path, one_after_another(40, 4_000), (1, 1024, 1024, 3))
    assert len(file.read(path).operators) == 80
