"""Bilinear values at computed positions."""

from __future__ import annotations

from slimseg.graph import ops
from slimseg.runtimes.coreml.lowering.step import Lowerings, Step, Var


def grid_sample(step: Step, layer: ops.GridSample) -> Var:
    maps, positions = step.inputs
    return step.mb.resample(
        x=maps,
        coordinates=positions,
        sampling_mode="bilinear",
        padding_mode="constant" if layer.outside == "zeros" else "border",
        padding_value=0.0,
        coordinates_mode="normalized_minus_one_to_one",
        align_corners=layer.align_corners,
        name=step.name,
    )


LOWERINGS: Lowerings = {ops.GridSample: grid_sample}
