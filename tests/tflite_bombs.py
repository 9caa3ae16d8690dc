"""Small `.tflite` files that unpack to, or ask for, far more than they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from slimseg.graph.description import Description
from slimseg.tflite.schema import ModelBuilder

Op, Options = tflite.BuiltinOperator, tflite.BuiltinOptions


class Repeated(flatbuffers.Builder):
    """A flatbuffer in which tables, vectors and text can be pointed at as often as one likes."""

    def table(self, slots: int, **places: int) -> int:
        """A table of offsets; keys are `at_<slot>`."""
        self.StartObject(slots)
        for name, offset in places.items():
            self.PrependUOffsetTRelativeSlot(int(name.removeprefix("at_")), offset, 0)
        return self.EndObject()

    def pointers(self, targets: Sequence[int]) -> int:
        self.StartVector(4, len(targets), 4)
        for target in reversed(targets):
            self.PrependUOffsetTRelative(target)
        return self.EndVector()

    def numbers(self, values: Sequence[int]) -> int:
        return self.CreateNumpyVector(np.asarray(values, np.int32))

    def model(self, subgraphs: Sequence[int], path: Path) -> None:
        """The whole file: Model(operator_codes 1, subgraphs 2, buffers 4)."""
        empty = self.table(3)
        lists = self.pointers([empty]), self.pointers(subgraphs), self.pointers([empty])
        self.Finish(self.table(9, at_1=lists[0], at_2=lists[1], at_4=lists[2]), b"TFL3")
        path.write_bytes(bytes(self.Output()))


def one_table_for_all(path: Path, count: int = 6000) -> None:
    """A graph of `count` tensors that all are the same table with a name, a shape and scales: 24 kB for 6000."""
    b = Repeated(1024)
    scales = b.table(7, at_2=b.numbers([1] * 64), at_3=b.CreateNumpyVector(np.zeros(64, np.int64)))
    tensor = b.table(10, at_0=b.numbers([1, 8, 8, 3]), at_3=b.CreateString("t" * 100), at_4=scales)
    b.model([b.table(6, at_0=b.pointers([tensor] * count))], path)


def graphs_of_graphs(path: Path, count: int = 3000) -> None:
    """As many graphs as each of them has tensors."""
    b = Repeated(1024)
    tensor = b.table(10, at_0=b.numbers([1, 8, 8, 3]))
    graph = b.table(6, at_0=b.pointers([tensor] * count))
    b.model([graph] * count, path)


def one_name_for_all(path: Path) -> None:
    """4000 tensors with the same name of a megabyte."""
    b = Repeated(1024)
    name = b.CreateString("n" * (1 << 20))
    tensors = [b.table(10, at_3=name) for _ in range(4000)]
    b.model([b.table(6, at_0=b.pointers(tensors))], path)


def operators_of_many_inputs(path: Path) -> None:
    """4000 operators that read the same list of 100,000 tensors."""
    b = Repeated(1024)
    inputs, outputs = b.numbers([0] * 100_000), b.numbers([1])
    tensors = b.pointers([b.table(10, at_0=b.numbers([1, 8, 8, 3])) for _ in range(2)])
    operators = b.pointers([b.table(9, at_1=inputs, at_2=outputs) for _ in range(4000)])
    ends = b.numbers([0]), b.numbers([1])
    b.model([b.table(6, at_0=tensors, at_1=ends[0], at_2=ends[1], at_3=operators)], path)


def a_tensor_of_many_dimensions(path: Path) -> None:
    b = Repeated(1024)
    shape = b.numbers([1] * 200_000)
    b.model([b.table(6, at_0=b.pointers([b.table(10, at_0=shape)] * 3))], path)


def built(path: Path, add: Callable[[ModelBuilder, int], int], shape: Sequence[int] = (1, 8, 8, 4)) -> None:
    """A file whose operators `add(builder, input)` appends, returning the output tensor."""
    builder = ModelBuilder()
    source = builder.tensor("image", shape)
    target = add(builder, source)
    path.write_bytes(builder.finish([source], [target], Description()))


def one_weight_for_all(path: Path) -> None:
    """800 convolutions share one weight of 4 MB."""

    def add(builder: ModelBuilder, value: int) -> int:
        weight = builder.constant("weight", np.zeros((1024, 1, 1, 1024), np.float32))
        for number in range(800):
            options = tflite.Conv2DOptionsT()
            options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
            target = builder.tensor(f"y{number}", (1, 8, 8, 1024))
            builder.operator(Op.CONV_2D, (value, weight), target, options, Options.Conv2DOptions)
            value = target
        return value

    built(path, add, (1, 8, 8, 1024))


def gathered(path: Path, rows: int = 1 << 14, length: int = 1 << 14) -> None:
    """A constant of 64 kB that a GATHER repeats into a gigabyte."""

    def add(builder: ModelBuilder, value: int) -> int:
        row = builder.constant("row", np.zeros((1, length), np.float32))
        indices = builder.constant("indices", np.zeros(rows, np.int32))
        big, target = builder.tensor("big", (rows, length)), builder.tensor("y", (1, 8, 8, 4))
        builder.operator(Op.GATHER, (row, indices), big, tflite.GatherOptionsT(), Options.GatherOptions)
        builder.operator(Op.ADD, (value, big), target, tflite.AddOptionsT(), Options.AddOptions)
        return target

    built(path, add)


def outer_products(path: Path) -> None:
    """Sums of a column and a row of 4000 numbers, again and again."""

    def add(builder: ModelBuilder, value: int) -> int:
        column = builder.constant("column", np.zeros((4000, 1), np.float32))
        row = builder.constant("row", np.zeros((1, 4000), np.float32))
        for number in range(1000):
            target = builder.tensor(f"c{number}", (4000, 4000))
            builder.operator(Op.ADD, (column, row), target, tflite.AddOptionsT(), Options.AddOptions)
            row = target if number % 2 else row
        target = builder.tensor("y", (1, 8, 8, 4))
        builder.operator(Op.ADD, (value, row), target, tflite.AddOptionsT(), Options.AddOptions)
        return target

    built(path, add)


def tiles(path: Path, count: int = 400) -> None:
    """A pixel that is repeated and cut back, again and again."""

    def add(builder: ModelBuilder, value: int) -> int:
        repeats = builder.constant("repeats", np.asarray([1, 2, 2, 1], np.int32))
        begin, size = (builder.constant(n, np.asarray(v, np.int32)) for n, v in (("b", [0] * 4), ("s", [1, 64, 64, 4])))
        for number in range(count):
            wide, target = builder.tensor(f"w{number}", (1, 128, 128, 4)), builder.tensor(f"t{number}", (1, 64, 64, 4))
            builder.operator(Op.TILE, (value, repeats), wide, tflite.TileOptionsT(), Options.TileOptions)
            builder.operator(Op.SLICE, (wide, begin, size), target, tflite.SliceOptionsT(), Options.SliceOptions)
            value = target
        return value

    built(path, add, (1, 64, 64, 4))


def alike_names(path: Path, count: int = 3900) -> None:
    """Thousands of layers of one name."""

    def add(builder: ModelBuilder, value: int) -> int:
        for _ in range(count):
            target = builder.tensor("same", (1, 8, 8, 4))
            builder.operator(Op.RELU, (value,), target)
            value = target
        return value

    built(path, add)


def a_circle(path: Path) -> None:
    """DEQUANTIZE of what an operator behind it makes."""

    def add(builder: ModelBuilder, value: int) -> int:
        first, second, target = (builder.tensor(name, (4,)) for name in ("a", "b", "c"))
        for source, result in ((second, first), (first, second)):
            builder.operator(Op.DEQUANTIZE, (source,), result, tflite.DequantizeOptionsT(), Options.DequantizeOptions)
        builder.operator(Op.ADD, (value, second), target, tflite.AddOptionsT(), Options.AddOptions)
        return target

    built(path, add)


def a_long_way_to_a_constant(path: Path, count: int = 3000) -> None:
    """Thousands of DEQUANTIZE in the order in which nothing is ready."""

    def add(builder: ModelBuilder, value: int) -> int:
        tensors = [builder.constant("a", np.zeros(4, np.float32)), *(builder.tensor("b", (4,)) for _ in range(count))]
        target = builder.tensor("y", (1, 8, 8, 4))
        builder.operator(Op.ADD, (value, tensors[-1]), target, tflite.AddOptionsT(), Options.AddOptions)
        for source, result in reversed(list(pairwise(tensors))):
            builder.operator(Op.DEQUANTIZE, (source,), result, tflite.DequantizeOptionsT(), Options.DequantizeOptions)
        return target

    built(path, add)


def a_stride_of_a_million(path: Path) -> None:
    """A transposed convolution that would make, and crop, 20 million columns."""

    def add(builder: ModelBuilder, value: int) -> int:
        sides = builder.constant("sides", np.asarray([1, 16, 40, 4], np.int32))
        weights = builder.constant("w", np.ones((4, 2, 2, 4), np.float32))
        target = builder.tensor("y", (1, 16, 40, 4))
        options = tflite.TransposeConvOptionsT()
        options.strideH, options.strideW, options.padding = 2, 1 << 20, tflite.Padding.VALID
        builder.operator(Op.TRANSPOSE_CONV, (sides, weights, value), target, options, Options.TransposeConvOptions)
        return target

    built(path, add, (1, 8, 20, 4))


def windows_of_a_million(path: Path) -> None:
    """A pooling of 32x32 pixels, each the maximum of a million."""

    def add(builder: ModelBuilder, value: int) -> int:
        target = builder.tensor("y", (1, 32, 32, 4))
        options = tflite.Pool2DOptionsT()
        options.strideH = options.strideW = 1
        options.filterHeight = options.filterWidth = 1000
        options.padding = tflite.Padding.SAME
        builder.operator(Op.MAX_POOL_2D, (value,), target, options, Options.Pool2DOptions)
        return target

    built(path, add, (1, 32, 32, 4))


BOMBS: dict[str, Callable[[Path], None]] = {
    function.__name__: function
    for function in (
        one_table_for_all, graphs_of_graphs, one_name_for_all, operators_of_many_inputs, a_tensor_of_many_dimensions,
        one_weight_for_all, gathered, outer_products, tiles, alike_names, a_circle, a_long_way_to_a_constant,
        a_stride_of_a_million, windows_of_a_million,
    )
}  # fmt: skip
