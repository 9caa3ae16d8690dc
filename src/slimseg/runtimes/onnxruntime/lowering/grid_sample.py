"""Bilinear values at computed positions."""

from __future__ import annotations

from slimseg.graph import ops
from slimseg.runtimes.onnxruntime.lowering.step import Lowerings, Step


def grid_sample(step: Step, layer: ops.GridSample) -> str:
    outside = "zeros" if layer.outside == "zeros" else "border"
    return step.add("GridSample", mode="bilinear", padding_mode=outside, align_corners=int(layer.align_corners))


LOWERINGS: Lowerings = {ops.GridSample: grid_sample}
