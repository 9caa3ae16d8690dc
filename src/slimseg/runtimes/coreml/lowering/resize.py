"""Resizing: by factors if they are integers, else to a size; nearest neighbours by their indices.

    half_pixel      y reads at (y + ½)·h/H − ½       upsample_bilinear, resize_bilinear "UNALIGN_CORNERS"
    align_corners   y reads at y·(h − 1)/(H − 1)     upsample_bilinear, resize_bilinear "STRICT_ALIGN_CORNERS"
    asymmetric      y reads at y·h/H                 resize_bilinear "DEFAULT": (h − h/H)/(H − 1) = h/H

If a side is resized to one pixel, the last two would divide by zero. They should read position 0, so the side is
cropped to its first pixel before. MIL does not document which of two pixels its resize_nearest_neighbor takes, so it is
not used: nearest neighbours by an integer factor are repeated pixels, by an integer divisor every k-th pixel, and all
others a gather of rows and of columns.
"""

from __future__ import annotations

import numpy as np
import torch

from slimseg.errors import Unsupported
from slimseg.graph import ops
from slimseg.runtimes.coreml.lowering.step import Lowerings, Step, Var, cut

_SAMPLING = {"half_pixel": "UNALIGN_CORNERS", "align_corners": "STRICT_ALIGN_CORNERS", "asymmetric": "DEFAULT"}


def resize(step: Step, layer: ops.Resize) -> Var:
    factors = _whole_factors(step)
    if step.flexible and factors is None:
        raise Unsupported(f"{step.node.name}: only resizing by whole factors fits flexible sizes")
    return _bilinear(step, layer, factors) if layer.mode == "bilinear" else _nearest(step, layer, factors)


def _whole_factors(step: Step) -> tuple[int, int] | None:
    (height, width), (rows, columns) = step.input_shapes[0][2:], step.shape[2:]
    return None if rows % height or columns % width else (rows // height, columns // width)


def _bilinear(step: Step, layer: ops.Resize, factors: tuple[int, int] | None) -> Var:
    source, corners = step.inputs[0], layer.coordinates == "align_corners"
    if factors is not None and layer.coordinates != "asymmetric":
        return step.mb.upsample_bilinear(
            x=source,
            scale_factor_height=float(factors[0]),
            scale_factor_width=float(factors[1]),
            align_corners=corners,
            half_pixel_centers=not corners,
            name=step.name,
        )
    if step.flexible:
        raise Unsupported(
            f"{step.node.name}: resizing with {layer.coordinates} coordinates does not fit flexible sizes: "
            "leave `sizes` out"
        )
    rows, columns = step.shape[2:]
    if layer.coordinates != "half_pixel" and 1 in (rows, columns):
        end = (0, 0, int(rows == 1), int(columns == 1))
        source = cut(step, source, (0, 0, 0, 0), end, step.named("first"))
    return step.mb.resize_bilinear(
        x=source,
        target_size_height=rows,
        target_size_width=columns,
        sampling_mode=_SAMPLING[layer.coordinates],
        name=step.name,
    )


def _nearest(step: Step, layer: ops.Resize, factors: tuple[int, int] | None) -> Var:
    if factors is not None and layer.coordinates != "align_corners":
        return step.mb.upsample_nearest_neighbor(
            x=step.inputs[0],
            scale_factor_height=float(factors[0]),
            scale_factor_width=float(factors[1]),
            name=step.name,
        )
    if step.flexible:
        raise Unsupported(f"{step.node.name}: only repeating by whole factors fits flexible sizes")
    rows, columns = _indices(step, layer)
    strides = [_stride(index) for index in (rows, columns)]
    lengths = step.input_shapes[0][2:]
    if None not in strides:
        return step.mb.slice_by_index(
            x=step.inputs[0],
            begin=[0, 0, int(rows[0]), int(columns[0])],
            end=[0, 0, min(int(rows[-1]) + 1, lengths[0]), min(int(columns[-1]) + 1, lengths[1])],
            stride=[1, 1, *strides],
            begin_mask=[True, True, False, False],
            end_mask=[True, True, False, False],
            name=step.name,
        )
    down = step.mb.gather(x=step.inputs[0], indices=rows, axis=2, name=step.named("rows"))
    return step.mb.gather(x=down, indices=columns, axis=3, name=step.name)


def _indices(step: Step, layer: ops.Resize) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns that the layer takes, found by resizing images of row and column numbers."""
    height, width = step.input_shapes[0][2:]
    rows = torch.arange(height, dtype=torch.float32).reshape(1, 1, -1, 1).expand(1, 1, height, width)
    columns = torch.arange(width, dtype=torch.float32).reshape(1, 1, 1, -1).expand(1, 1, height, width)
    with torch.no_grad():
        taken = layer(rows)[0, 0, :, 0], layer(columns)[0, 0, 0]
    return taken[0].numpy().astype(np.int32), taken[1].numpy().astype(np.int32)


def _stride(index: np.ndarray) -> int | None:
    """The constant step between the indices; None if it is not constant and positive."""
    steps = set(np.diff(index).tolist()) or {1}
    return int(steps.pop()) if len(steps) == 1 and min(steps) > 0 else None


LOWERINGS: Lowerings = {
    ops.Resize: resize,
}
