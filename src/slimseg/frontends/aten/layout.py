"""What moves values about: resizes, pads, reshapes, slices, concatenation; and what changes nothing."""

from __future__ import annotations

from collections.abc import Callable

from slimseg.frontends.aten.call import Alias, Call, Layer, pair
from slimseg.graph import ops


def bilinear(call: Call) -> Layer:
    size = pair(call.output_shape[2:])
    coordinates: ops.Coordinates = "align_corners" if call["align_corners"] else "half_pixel"
    return Layer(
        lambda: ops.Resize(size, "bilinear", coordinates),
        (call["input" if "input" in call.arguments else "self"],),
        "resize",
    )


def nearest(mode: ops.ResizeMode) -> Callable[[Call], Layer]:
    def handler(call: Call) -> Layer:
        size = pair(call.output_shape[2:])
        return Layer(
            lambda: ops.Resize(size, mode), (call["input" if "input" in call.arguments else "self"],), "resize"
        )

    return handler


def pad(call: Call) -> Layer | None:
    amounts = [int(amount) for amount in call["pad"]]
    if call.arguments.get("mode", "constant") != "constant" or len(call.output_shape) != 4 or len(amounts) > 4:
        return None
    left, right, top, bottom = (*amounts, 0, 0)[:4]
    value = float(call["value"] or 0.0)
    return Layer(lambda: ops.Pad((left, right, top, bottom), value), (call["self"],), "pad")


def expand(call: Call) -> Layer | Alias | None:
    """One pixel spread over a map is the nearest resize of it."""
    before, after = call.shape("self"), call.output_shape
    if before == after:
        return Alias(call["self"])
    if len(after) != 4 or before != (*after[:2], 1, 1):
        return None
    return Layer(lambda: ops.Resize(pair(after[2:]), "nearest"), (call["self"],), "expand")


def reshape(call: Call) -> Alias | None:
    return Alias(call["self"]) if call.shape("self") == call.output_shape else None


def concat(call: Call) -> Layer | None:
    tensors = tuple(call["tensors"])
    if any(tensor in call.parameters for tensor in tensors) or len(call.output_shape) != 4:
        return None
    dim = int(call["dim"]) % len(call.output_shape)
    return Layer(lambda: ops.Concat(dim), tensors, "concat")


def arg_max(call: Call) -> Layer | None:
    if len(call.shape("self")) != 4 or call["dim"] not in (1, -3) or call["keepdim"]:
        return None
    return Layer(ops.ArgMax, (call["self"],), "argmax")


def channel_slice(call: Call) -> Layer | None:
    length = call.shape("self")[call["dim"]]
    start = 0 if call["start"] is None else int(call["start"])
    stop = length if call["end"] is None else min(int(call["end"]), length)
    if call["step"] != 1 or len(call.output_shape) != 4:
        return None
    start, stop = start + length * (start < 0), stop + length * (stop < 0)
    dim = int(call["dim"]) % len(call.output_shape)
    return Layer(lambda: ops.Slice(dim, start, stop), (call["self"],), "slice")


def alias(argument: str) -> Callable[[Call], Alias]:
    return lambda call: Alias(call[argument])


def dropout(call: Call) -> Alias:
    return Alias(call["input"])
