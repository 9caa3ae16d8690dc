"""Bilinear values at computed positions: TFLite has no operator for that, so four neighbours are gathered and weighted.

Positions become pixels in a flat list of all maps: number y·W + x for the neighbour at the top left, and 1, W, W + 1
more for the other three. Their weights are products of one factor for x and one for y. No linear layer computes these
numbers, since schemes that store weights in 8 bits would round them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from slimseg.errors import Unsupported
from slimseg.graph import ops
from slimseg.runtimes.litert.writing.lowering.step import (
    Fused,
    Lowerings,
    Op,
    Options,
    Step,
    pad_operator,
    reshape_operator,
)
from slimseg.tflite.schema import ModelBuilder

_MOST_PIXELS = 1 << 24  # whose numbers float32 holds exactly


def grid_sample(builder: ModelBuilder, step: Step, layer: ops.GridSample) -> int:
    images, height, width, channels = step.input_shapes[0]
    maps, positions = step.inputs
    around = layer.outside == "zeros"  # a border of zeros, beyond which all is zero, too
    scale = [(length - layer.align_corners) / 2 for length in (width, height)]
    shift = [(length - 1) / 2 + around for length in (width, height)]
    if around:
        height, width = height + 2, width + 2
        shape = (images, height, width, channels)
        maps = pad_operator(builder, maps, f"{step.name}_padded", shape, ((1, 1), (1, 1)), 0.0)
    if images * height * width > _MOST_PIXELS:
        raise Unsupported(f"{step.name}: it reads from more than {_MOST_PIXELS} pixels")
    writer = _Writer(builder, step, (*step.input_shapes[1][:3],))
    places = writer.limited(writer.scaled(positions, scale, shift), width, height)
    corners = writer.corners(places, width, height)
    shares = writer.arithmetic(Op.SUB, "shares", places, corners, 2)
    pixels = writer.pixels(corners, width, height, images)
    flat = reshape_operator(builder, maps, f"{step.name}_flat", (images * height * width, channels))
    neighbours = writer.gathered(flat, pixels, channels)
    return writer.weighted(neighbours, shares)


class _Writer:
    """Writes the operators of one node; `points` is the shape of its positions without (x, y)."""

    def __init__(self, builder: ModelBuilder, step: Step, points: tuple[int, ...]) -> None:
        self.builder = builder
        self.name = step.name
        self.shape = step.shape
        self.points = points

    def scaled(self, positions: int, scale: list[float], shift: list[float]) -> int:
        """Positions in pixels, (x, y); those before the first pixel become 0."""
        scaled = self.arithmetic(Op.MUL, "scaled", positions, self._constant("scale", scale), 2)
        return self.arithmetic(Op.ADD, "shifted", scaled, self._constant("shift", shift), 2, Fused.RELU)

    def limited(self, places: int, width: int, height: int) -> int:
        """Positions, at most on the last pixel."""
        return self._smaller("places", places, [width - 1, height - 1])

    def corners(self, places: int, width: int, height: int) -> int:
        """The neighbours at the top left, which are never on the last row or column, if there are several."""
        floors = self._tensor("floor", 2)
        self.builder.operator(Op.FLOOR, (places,), floors, None, 0)
        return self._smaller("corners", floors, [max(width - 2, 0), max(height - 2, 0)])

    def pixels(self, corners: int, width: int, height: int, images: int) -> int:
        """Numbers of the four neighbours in the list of all pixels."""
        right, below = int(width > 1), width * int(height > 1)
        steps = self.arithmetic(Op.MUL, "steps", corners, self._constant("row", [1, width]), 2)
        numbers = self._sum("numbers", steps, keeps=True)
        first = np.arange(images, dtype=np.float32).reshape(-1, 1, 1, 1) * (width * height)
        start = self._constant("start", first + np.asarray([0, right, below, below + right], np.float32))
        pixels = self.arithmetic(Op.ADD, "pixels", numbers, start, 4)
        target = self._tensor("pixels_int", 4, np.int32)
        self.builder.operator(Op.CAST, (pixels,), target, tflite.CastOptionsT(), Options.CastOptions)
        return target

    def gathered(self, flat: int, pixels: int, channels: int) -> int:
        options = tflite.GatherOptionsT()
        options.axis = 0
        target = self.builder.tensor(f"{self.name}_neighbours", (*self.points, 4, channels))
        self.builder.operator(Op.GATHER, (flat, pixels), target, options, Options.GatherOptions)
        return target

    def weighted(self, neighbours: int, shares: int) -> int:
        """The sum of the neighbours times their weights; `shares` is how far (x, y) is from the one at the top left."""
        across = self._factors("across", shares, 0, [-1, 1, -1, 1])
        down = self._factors("down", shares, 1, [-1, -1, 1, 1])
        weights = self.arithmetic(Op.MUL, "weights", across, down, 4)
        column = reshape_operator(self.builder, weights, f"{self.name}_column", (*self.points, 4, 1))
        parts = self.builder.tensor(f"{self.name}_parts", self.builder.shape(neighbours))
        self.builder.operator(Op.MUL, (neighbours, column), parts, tflite.MulOptionsT(), Options.MulOptions)
        return self._sum("", parts, keeps=False)

    def arithmetic(self, code: int, part: str, first: int, second: int, last: int, fused: int = Fused.NONE) -> int:
        build, kind = _ARITHMETIC[code]
        options = build()
        options.fusedActivationFunction = fused
        target = self._tensor(part, last)
        self.builder.operator(code, (first, second), target, options, kind)
        return target

    def _smaller(self, part: str, value: int, most: list[int]) -> int:
        target, limit = self._tensor(part, 2), self._constant(f"{part}_most", most)
        options = tflite.MaximumMinimumOptionsT()
        self.builder.operator(Op.MINIMUM, (value, limit), target, options, Options.MaximumMinimumOptions)
        return target

    def _factors(self, part: str, shares: int, place: int, signs: list[int]) -> int:
        """The shares of one direction for neighbours with sign 1, and what they leave of 1 for the others."""
        start = self.builder.constant(f"{self.name}_{part}_begin", np.asarray([0, 0, 0, place], np.int32))
        size = self.builder.constant(f"{self.name}_{part}_size", np.asarray([*self.points, 1], np.int32))
        share = self._tensor(f"{part}_share", 1)
        self.builder.operator(Op.SLICE, (shares, start, size), share, tflite.SliceOptionsT(), Options.SliceOptions)
        signed = self.arithmetic(Op.MUL, f"{part}_signed", share, self._constant(f"{part}_signs", signs), 4)
        rest = self._constant(f"{part}_rest", [float(sign < 0) for sign in signs])
        return self.arithmetic(Op.ADD, part, signed, rest, 4)

    def _sum(self, part: str, value: int, keeps: bool) -> int:
        """The sum over the fourth dimension: of x and y, or of neighbours, which gives the node's result."""
        options = tflite.ReducerOptionsT()
        options.keepDims = keeps
        axes = self.builder.constant(f"{self.name}_{part}_axes", np.asarray([3], np.int32))
        target = self._tensor(part, 1) if keeps else self.builder.tensor(self.name, self.shape)
        self.builder.operator(Op.SUM, (value, axes), target, options, Options.ReducerOptions)
        return target

    def _tensor(self, part: str, last: int, dtype: type = np.float32) -> int:
        return self.builder.tensor(f"{self.name}_{part}", (*self.points, last), dtype)

    def _constant(self, part: str, values: Any) -> int:
        return self.builder.constant(f"{self.name}_{part}", np.asarray(values, np.float32))


_ARITHMETIC = {
    Op.ADD: (tflite.AddOptionsT, Options.AddOptions),
    Op.SUB: (tflite.SubOptionsT, Options.SubOptions),
    Op.MUL: (tflite.MulOptionsT, Options.MulOptions),
}
LOWERINGS: Lowerings = {ops.GridSample: grid_sample}
