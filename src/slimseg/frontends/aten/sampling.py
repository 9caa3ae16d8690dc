"""Values at positions that are computed."""

from __future__ import annotations

from slimseg.frontends.aten.call import Call, Layer
from slimseg.graph import ops

_BILINEAR = 0
_OUTSIDE: dict[int, ops.Outside] = {0: "zeros", 1: "border"}


def grid_sample(call: Call) -> Layer | None:
    outside, corners = _OUTSIDE.get(call["padding_mode"]), bool(call["align_corners"])
    if call["interpolation_mode"] != _BILINEAR or outside is None or len(call.output_shape) != 4:
        return None
    return Layer(lambda: ops.GridSample(outside, corners), (call["input"], call["grid"]), "grid_sample")
