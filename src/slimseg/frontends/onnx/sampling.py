"""Values at positions that are computed."""

from __future__ import annotations

import numpy as np

from slimseg.frontends.onnx.builder import Call, Value, plain
from slimseg.graph import ops

_OUTSIDE: dict[str, ops.Outside] = {"zeros": "zeros", "border": "border"}


def grid_sample(call: Call) -> Value:
    value = call.plain(0)
    grid = call.inputs[1]
    positions = call.builder.always(call.node, grid) if isinstance(grid, np.ndarray) else call.plain(1)
    mode, padding = call.attribute("mode", "linear"), call.attribute("padding_mode", "zeros")
    if value.rank != 4 or mode not in ("linear", "bilinear") or padding not in _OUTSIDE:
        raise call.unknown(f"its mode is {mode} with {padding} outside")
    layer = ops.GridSample(_OUTSIDE[padding], bool(call.attribute("align_corners", 0)))
    return plain(call.emit(layer, value.node, positions.node))
