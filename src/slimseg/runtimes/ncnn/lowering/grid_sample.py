"""Bilinear values at computed positions."""

from __future__ import annotations

from slimseg.graph import ops
from slimseg.runtimes.ncnn.lowering.step import Lowerings, Step, as_map
from slimseg.runtimes.ncnn.net import Net, Param

_BILINEAR = 1
_OUTSIDE = {"zeros": 1, "border": 2}


def grid_sample(net: Net, step: Step, layer: ops.GridSample) -> int:
    sources = tuple(as_map(net, step, number) for number in (0, 1))
    params: dict[int, Param] = {0: _BILINEAR, 1: _OUTSIDE[layer.outside], 2: int(layer.align_corners)}
    return net.add("GridSample", step.name, sources, step.shape, params)


LOWERINGS: Lowerings = {ops.GridSample: grid_sample}
