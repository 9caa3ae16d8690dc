"""Resizing, always to explicit sizes, since ncnn would round a scale that is not an integer.

ncnn's Interp samples the same positions as torch for half_pixel and align_corners, and its nearest is torch's. The
other modes are composed of it, exactly. For a side of h pixels resized to H:

    asymmetric       y·h/H for y < H        equals align_corners from h + 1 to H + 1, whose step is h/H, too:
                                             repeat the last pixel, resize, drop the last result
    nearest-exact    ⌊(y + ½)·h/H⌋           equals ⌊z·h/2H⌋ at odd z: resize to 2H, drop the first pixel, keep every
                                             second; if h divides H it equals nearest
    nearest, corners ⌊y·(h−1)/(H−1) + ½⌋     has no constant step: GridSample reads the positions of a table
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slimseg.errors import Unsupported
from slimseg.graph import ops
from slimseg.runtimes.ncnn.lowering.pooling import MAX
from slimseg.runtimes.ncnn.lowering.step import Lowerings, Step, as_map, constant, crop
from slimseg.runtimes.ncnn.net import Array, Net, Param

_NEAREST, _BILINEAR = 1, 2
_REPEAT = 1  # Padding's `type`: repeat the border


def resize(net: Net, step: Step, layer: ops.Resize) -> int:
    old, new = step.input_shapes[0][1:], step.shape[1:]
    if len(net.shape(step.inputs[0])) == 1:  # one pixel from global pooling: Interp repeats a flat blob
        return _interp(net, step.inputs[0], step.name, step.shape, _NEAREST)
    source = as_map(net, step)
    if old == new:
        return source
    if layer.mode != "bilinear":
        return _nearest(net, step, source, layer)
    if layer.coordinates == "asymmetric":
        return _asymmetric(net, step, source)
    return _bilinear(net, step.name, source, step.shape, layer.coordinates == "align_corners")


def _bilinear(net: Net, name: str, source: int, shape: Sequence[int], corners: bool) -> int:
    """Bilinear resize; a side of one pixel is repeated before, since ncnn always reads two pixels of a side."""
    channels, height, width = net.shape(source)
    if corners and any(new == 1 < old for old, new in zip((height, width), shape[1:], strict=True)):
        raise Unsupported(f"{name}: ncnn cannot resize a side to one pixel with align_corners")
    if height == width == 1:
        return _interp(net, source, name, shape, _NEAREST)
    if 1 in (height, width):
        source = _interp(net, source, f"{name}_widened", (channels, max(height, 2), max(width, 2)), _NEAREST)
    return _interp(net, source, name, shape, _BILINEAR, corners)


def _interp(net: Net, source: int, name: str, shape: Sequence[int], kind: int, corners: bool = False) -> int:
    params: dict[int, Param] = {0: kind, 3: shape[1], 4: shape[2]}
    if corners:
        params[6] = 1
    return net.add("Interp", name, (source,), shape, params)


def _asymmetric(net: Net, step: Step, source: int) -> int:
    channels, height, width = net.shape(source)
    longer = (channels, height + 1, width + 1)
    padded = net.add("Padding", f"{step.name}_padded", (source,), longer, {1: 1, 3: 1, 4: _REPEAT})
    whole = (channels, step.shape[1] + 1, step.shape[2] + 1)
    resized = _interp(net, padded, f"{step.name}_resized", whole, _BILINEAR, corners=True)
    return crop(net, resized, step.name, (0, 0, 0), step.shape)


def _nearest(net: Net, step: Step, source: int, layer: ops.Resize) -> int:
    if layer.coordinates == "align_corners":
        return _by_table(net, step, source)
    channels, *old = net.shape(source)
    if layer.mode == "nearest" or not any(new % length for length, new in zip(old, step.shape[1:], strict=True)):
        return _interp(net, source, step.name, step.shape, _NEAREST)
    doubled = (channels, 2 * step.shape[1], 2 * step.shape[2])
    resized = _interp(net, source, f"{step.name}_doubled", doubled, _NEAREST)
    part = crop(net, resized, f"{step.name}_odd", (0, 1, 1), (channels, doubled[1] - 1, doubled[2] - 1))
    return every(net, part, step.name, step.shape, (2, 2))


def _by_table(net: Net, step: Step, source: int) -> int:
    """Nearest neighbour by a table of the position to read for every result pixel: (H, W, 2), x and y from -1 to 1."""
    _, height, width = net.shape(source)
    rows, columns = (
        _position(np.floor(np.arange(new) * ((old - 1) / max(new - 1, 1)) + 0.5), old)
        for old, new in zip((height, width), step.shape[1:], strict=True)
    )
    table = np.stack(np.broadcast_arrays(columns[None, :], rows[:, None]), -1)
    params: dict[int, Param] = {0: 2, 1: 2, 2: 1}  # nearest; repeat the border; align corners
    return net.add("GridSample", step.name, (source, constant(net, f"{step.name}_table", table)), step.shape, params)


def _position(index: Array, length: int) -> Array:
    return np.minimum(index, length - 1) / max(length - 1, 1) * 2 - 1


def every(net: Net, source: int, name: str, shape: Sequence[int], steps: tuple[int, int]) -> int:
    """Every `steps[0]`-th row and `steps[1]`-th column from the first, by max pooling of single pixels."""
    params: dict[int, Param] = {0: MAX, 1: 1, 11: 1, 2: steps[1], 12: steps[0], 5: 1}
    return net.add("Pooling", name, (source,), shape, params)


LOWERINGS: Lowerings = {
    ops.Resize: resize,
}
