"""Resizing to explicit sizes.

bilinear, half_pixel       y reads at (y + ½)·h/H − ½          "half_pixel"
bilinear, align_corners    y reads at y·(h − 1)/(H − 1)        "align_corners"
bilinear, asymmetric       y reads at y·h/H                    "asymmetric"
nearest                    ⌊y·h/H⌋                             "asymmetric", floor
nearest-exact              ⌊(y + ½)·h/H⌋                       "half_pixel", round_prefer_ceil
nearest, align_corners     ⌊y·(h − 1)/(H − 1) + ½⌋             "align_corners", round_prefer_ceil
"""

from __future__ import annotations

from slimseg.graph import ops
from slimseg.runtimes.onnxruntime.lowering.step import Lowerings, Step


def resize(step: Step, layer: ops.Resize) -> str:
    inputs = (step.inputs[0], "", "", step.integers("size", step.shape))
    if layer.mode == "bilinear":
        return step.add("Resize", inputs, mode="linear", coordinate_transformation_mode=layer.coordinates)
    places, rounding = "half_pixel", "round_prefer_ceil"
    if layer.coordinates == "align_corners":
        places = "align_corners"
    elif layer.mode == "nearest":
        places, rounding = "asymmetric", "floor"
    return step.add("Resize", inputs, mode="nearest", coordinate_transformation_mode=places, nearest_mode=rounding)


LOWERINGS: Lowerings = {ops.Resize: resize}
