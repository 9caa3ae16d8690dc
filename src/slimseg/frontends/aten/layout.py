"""Calls that move values (pads, reshapes, slices, concatenation), and calls that change nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import fx, nn

from slimseg.frontends.aten.call import Alias, Call, Chain, Layer, pair
from slimseg.frontends.aten.layers import max_pool
from slimseg.graph import ops


def pad(call: Call) -> Layer | None:
    amounts = [int(amount) for amount in call["pad"]]
    if call.arguments.get("mode", "constant") != "constant" or len(call.output_shape) != 4 or any(amounts[6:]):
        return None
    left, right, top, bottom, first, last = (*amounts, 0, 0, 0, 0)[:6]
    value = float(call["value"] or 0.0)
    return Layer(lambda: ops.Pad((left, right, top, bottom), value, (first, last)), (call["self"],), "pad")


def expand(call: Call) -> Layer | Alias | None:
    """Expanding one pixel, row or column over a map is a nearest resize of it."""
    before, after = call.shape("self"), call.output_shape
    if before == after:
        return Alias(call["self"])
    if len(after) != 4 or before[:-2] != after[:2]:
        return None
    return Layer(lambda: ops.Resize(pair(after[2:]), "nearest"), (call["self"],), "expand")


def reshape(call: Call) -> Layer | Alias:
    """view, reshape, flatten, squeeze, unsqueeze: the same values in the same order, in another shape."""
    shape = call.output_shape
    if call.shape("self") == shape:
        return Alias(call["self"])
    return Layer(lambda: ops.Reshape(shape, channels_last=False), (call["self"],), "reshape")


def pixel_shuffle(call: Call) -> Layer | Chain | None:
    """torch keeps the b·b values of one channel together; DepthToSpace the channels of one place."""
    b, shape = int(call["upscale_factor"]), call.shape("self")
    if len(shape) != 4:
        return None
    blocks = Layer(lambda: ops.DepthToSpace(b), (call["self"],), "depth_to_space")
    if shape[1] == b * b:
        return blocks
    moved = _turned(call["self"], (shape[1] // b**2, b * b), shape)
    return Chain((*moved, replace(blocks, inputs=(len(moved) - 1,))))


def pixel_unshuffle(call: Call) -> Layer | Chain | None:
    """The inverse of pixel_shuffle."""
    b, shape = int(call["downscale_factor"]), call.shape("self")
    if len(shape) != 4:
        return None
    blocks = Layer(lambda: ops.SpaceToDepth(b), (call["self"],), "space_to_depth")
    if shape[1] == 1:
        return blocks
    return Chain((blocks, *_turned(0, (b * b, shape[1]), call.output_shape)))


def channel_shuffle(call: Call) -> Chain:
    groups, shape = int(call["groups"]), call.output_shape
    return Chain(_turned(call["self"], (groups, shape[1] // groups), shape))


def _turned(source: fx.Node | int, parts: tuple[int, int], shape: tuple[int, ...]) -> tuple[Layer, ...]:
    """Channels, taken as a matrix of `parts`, in the order of its columns."""
    apart, dims = (shape[0], *parts, *shape[2:]), (0, 2, 1, *range(3, len(shape) + 1))
    first = source + 1 if isinstance(source, int) else 0
    return (
        Layer(lambda: ops.Reshape(apart, channels_last=False), (source,), "apart"),
        Layer(lambda: ops.Transpose(dims), (first,), "permute"),
        Layer(lambda: ops.Reshape(shape, channels_last=False), (first + 1,), "reshape"),
    )


def permute(call: Call) -> Layer:
    rank = len(call.output_shape)
    dims = tuple(int(dim) % rank for dim in call["dims"])
    return Layer(lambda: ops.Transpose(dims), (call["self"],), "permute")


def transpose(call: Call) -> Layer:
    rank = len(call.output_shape)
    dims = list(range(rank))
    first, second = int(call["dim0"]) % rank, int(call["dim1"]) % rank
    dims[first], dims[second] = second, first
    return Layer(lambda: ops.Transpose(tuple(dims)), (call["self"],), "transpose")


def reduction(kind: ops.Reduction) -> Callable[[Call], Layer | Chain | None]:
    """A handler for a reduction over some dimensions; the mean over a map with `keepdim` is global average pooling."""

    def handler(call: Call) -> Layer | Chain | None:
        rank = len(call.shape("self"))
        dims, keepdim = tuple(sorted(int(dim) % rank for dim in call["dim"] or ())), bool(call["keepdim"])
        if dims == (0,) and not keepdim:
            return _over_stack(kind, call["self"])
        if not dims or 0 in dims or call.arguments.get("dtype") is not None:
            return None
        if kind == "mean" and keepdim and rank == 4 and dims == (2, 3):
            return Layer(lambda: nn.AdaptiveAvgPool2d((1, 1)), (call["self"],), "avg_pool")
        return Layer(lambda: ops.Reduce(kind, dims, keepdim), (call["self"],), kind)

    return handler


_SPLITS = frozenset(("split.Tensor", "split.sizes", "split_with_sizes.default", "chunk.default"))
# Calls that return several values, whose layers are made where one of these values is read.
TAKEN_APART = _SPLITS | frozenset(
    ("unbind.int", "max_pool2d_with_indices.default", "unsafe_split.Tensor", "unsafe_chunk.default")
)


def part(item: fx.Node) -> Layer | Chain | None:
    """One of several results: of split or chunk as a slice of their input, of a pooling as its maxima."""
    whole, index = item.args
    if not isinstance(whole, fx.Node) or not isinstance(index, int):
        return None
    name = str(whole.target).removeprefix("aten.").removeprefix("unsafe_")
    if name in _SPLITS:
        return _slice_of(whole, index)
    if name not in TAKEN_APART:
        return None
    call = Call(whole, {})
    if name == "max_pool2d_with_indices.default" and index == 0:
        return max_pool(call)
    if name == "unbind.int":
        return _one_of(call["self"], int(call["dim"]), index)
    return None


def _over_stack(kind: ops.Reduction, source: fx.Node) -> Chain | None:
    """The sum, mean, maximum or minimum of values that were stacked before their batch."""
    call = Call(source, {})
    if str(source.target) != "aten.stack.default" or int(call["dim"]) % source.meta["val"].ndim != 0:
        return None
    together = {"max": ops.Maximum, "min": ops.Minimum}.get(kind, ops.Add)
    tensors = tuple(call["tensors"])
    layers = []
    for number, tensor in enumerate(tensors[1:]):
        layers.append(Layer(together, (number - 1 if number else tensors[0], tensor), kind))
    if kind == "mean":
        layers.append(Layer(lambda: ops.Affine(torch.tensor(1 / len(tensors))), (len(layers) - 1,), "mean"))
    return Chain(tuple(layers)) if layers else None


def _slice_of(whole: fx.Node, index: int) -> Layer:
    source, values = whole.args[0], whole.meta["val"]
    assert isinstance(source, fx.Node)
    given = whole.args[2] if len(whole.args) > 2 else whole.kwargs.get("dim", 0)
    assert isinstance(given, int)
    dim = given % values[0].ndim
    start = sum(int(value.shape[dim]) for value in values[:index])
    stop = start + int(values[index].shape[dim])
    return Layer(lambda: ops.Slice(dim, start, stop), (source,), "split")


def select(call: Call) -> Chain | None:
    return _one_of(call["self"], int(call["dim"]), int(call["index"]))


def _one_of(source: fx.Node, dim: int, index: int) -> Chain | None:
    """One position of a dimension, which is left out of the result.

    Attention stacks query, key and value, moves that dimension to the front and takes them apart: they are sliced
    before it is moved, so that the batch stays the first dimension.
    """
    shape = tuple(source.meta["val"].shape)
    dim, index = dim % len(shape), index % shape[dim % len(shape)]
    before = _before_reshape(source, dim)
    if before is not None and (chain := _one_of(before, dim, index)) is not None:
        rest = (*shape[:dim], *shape[dim + 1 :])
        last = Layer(lambda: ops.Reshape(rest, channels_last=False), (len(chain.layers) - 1,), "reshape")
        return Chain((*chain.layers, last))
    base, dims = _viewed(source)
    along, order = dims[dim], [each for place, each in enumerate(dims) if place != dim and each is not None]
    if not along or order[:1] != [0]:
        return _without_first(source, dim, shape)
    lengths = tuple(base.meta["val"].shape)
    kept = [each for each in range(len(lengths)) if each in order]
    left = (*shape[:dim], *shape[dim + 1 :])
    layers = [
        Layer(lambda: ops.Slice(along, index, index + 1), (base,), "select"),
        Layer(lambda: ops.Reshape(tuple(lengths[each] for each in kept), channels_last=False), (0,), "reshape"),
    ]
    if order != kept:
        moved = tuple(kept.index(each) for each in order)
        layers.append(Layer(lambda: ops.Transpose(moved), (1,), "permute"))
    if tuple(lengths[each] for each in order) != left:
        layers.append(Layer(lambda: ops.Reshape(left, channels_last=False), (len(layers) - 1,), "reshape"))
    return Chain(tuple(layers))


def _without_first(source: fx.Node, dim: int, shape: tuple[int, ...]) -> Chain | None:
    """The only one along the first dimension, as the image of a batch, or one layer's results; None for one of more."""
    if dim != 0 or shape[0] != 1:
        return None
    return Chain((Layer(lambda: ops.Reshape(shape[1:], channels_last=False), (source,), "reshape"),))


def _before_reshape(node: fx.Node, dim: int) -> fx.Node | None:
    """What a reshape reads that changes only dimensions behind `dim`."""
    if str(node.target).removeprefix("aten.") not in ("view.default", "reshape.default", "_unsafe_view.default"):
        return None
    source = node.args[0]
    assert isinstance(source, fx.Node)
    kept = tuple(source.meta["val"].shape[: dim + 1]) == tuple(node.meta["val"].shape[: dim + 1])
    return source if kept else None


def _viewed(node: fx.Node) -> tuple[fx.Node, list[int | None]]:
    """The value of which a node is a view that only moves, adds or drops dimensions.

    Returns:
        That value, and for every dimension of the node the value's dimension; None if its length 1 was added.
    """
    dims: list[int | None] = list(range(node.meta["val"].ndim))
    while (source := _source_dims(node)) is not None:
        node, before = source
        dims = [None if dim is None else before[dim] for dim in dims]
    return node, dims


def _source_dims(node: fx.Node) -> tuple[fx.Node, list[int | None]] | None:
    """The argument of a permute, transpose, squeeze or unsqueeze, and for every dimension of the result its own."""
    name, rank = str(node.target).removeprefix("aten."), node.meta["val"].ndim
    if name in ("contiguous.default", "clone.default", "alias.default"):
        source = node.args[0]
        assert isinstance(source, fx.Node)
        return source, list(range(rank))
    if name not in ("permute.default", "transpose.int", "unsqueeze.default", "squeeze.dim"):
        return None
    source = node.args[0]
    assert isinstance(source, fx.Node)
    if name == "contiguous.default":
        return source, list(range(rank))
    call = Call(node, {})
    if name == "permute.default":
        return source, [int(dim) % rank for dim in call["dims"]]
    if name == "transpose.int":
        dims: list[int | None] = list(range(rank))
        first, second = int(call["dim0"]) % rank, int(call["dim1"]) % rank
        dims[first], dims[second] = second, first
        return source, dims
    if name == "unsqueeze.default":
        added = int(call["dim"]) % rank
        return source, [None if dim == added else dim - (dim > added) for dim in range(rank)]
    dropped = int(call["dim"]) % source.meta["val"].ndim
    if source.meta["val"].ndim == rank:
        return source, list(range(rank))  # the dimension is longer than 1, and stays
    return source, [dim + (dim >= dropped) for dim in range(rank)]


def stack(call: Call) -> Chain | None:
    """Each value gets the new dimension, then they are concatenated along it."""
    tensors, after = tuple(call["tensors"]), call.output_shape
    dim = int(call["dim"]) % len(after)
    if any(tensor in call.parameters for tensor in tensors) or dim == 0:
        return None
    one = (*after[:dim], 1, *after[dim + 1 :])
    parts = [Layer(lambda: ops.Reshape(one, channels_last=False), (tensor,), "reshape") for tensor in tensors]
    return Chain((*parts, Layer(lambda: ops.Concat(dim), tuple(range(len(parts))), "stack")))


def concat(call: Call) -> Layer | Alias | None:
    """Constants, as a class token, become values; channels of zeros are padding; empty tensors are left out."""
    tensors = tuple(
        each for each in call["tensors"] if each not in call.parameters or call.parameters[each].tensor.numel()
    )
    rank = len(call.output_shape)
    if len(tensors) == 1:
        return Alias(tensors[0], copies=True)
    if rank < 2 or any(tensor.meta["val"].ndim != rank for tensor in tensors):
        return None
    dim = int(call["dim"]) % rank
    if (dim, rank, len(tensors)) == (1, 4, 2):
        for value, other, first in ((*tensors, False), (*tensors[::-1], True)):
            if other in call.parameters and not bool(call.parameters[other].tensor.any()):
                added = int(other.meta["val"].shape[1])
                channels = (added, 0) if first else (0, added)
                return Layer(partial(ops.Pad, (0, 0, 0, 0), 0.0, channels), (value,), "pad")
    return Layer(lambda: ops.Concat(dim), tensors, "concat")


def arg_max(call: Call) -> Layer | Chain | None:
    return _largest(call["self"], call["dim"], bool(call["keepdim"]))


def _largest(source: fx.Node, dim: int | None, keepdim: bool) -> Layer | Chain | None:
    """The index of the largest value along a dimension of a map, which is first moved to the place of the channels."""
    shape = tuple(source.meta["val"].shape)
    if dim is None or len(shape) != 4 or dim % 4 == 0:
        return None
    dim %= 4
    layers: list[Layer] = []
    if dim != 1:
        dims = (0, dim, *(other for other in (1, 2, 3) if other != dim))
        layers.append(Layer(lambda: ops.Transpose(dims), (source,), "permute"))
    layers.append(Layer(ops.ArgMax, (len(layers) - 1 if layers else source,), "argmax"))
    if keepdim:
        kept = (*shape[:dim], 1, *shape[dim + 1 :])
        layers.append(Layer(lambda: ops.Reshape(kept, channels_last=False), (len(layers) - 1,), "reshape"))
    return Chain(tuple(layers)) if len(layers) > 1 else layers[0]


def narrow(call: Call) -> Layer | Alias:
    dim, start, length = int(call["dim"]) % len(call.output_shape), int(call["start"]), int(call["length"])
    whole = call.shape("self")[dim]
    if length == whole:
        return Alias(call["self"])
    start += whole * (start < 0)
    return Layer(lambda: ops.Slice(dim, start, start + length), (call["self"],), "slice")


def channel_slice(call: Call) -> Layer | Alias:
    dim = int(call["dim"]) % len(call.output_shape)
    length = call.shape("self")[dim]
    start, stop, step = slice(call["start"], call["end"], call["step"]).indices(length)
    if (start, stop, step) == (0, length, 1):
        return Alias(call["self"])
    return Layer(lambda: ops.Slice(dim, start, stop, step), (call["self"],), "slice")


def alias(argument: str) -> Callable[[Call], Alias]:
    return lambda call: Alias(call[argument])


def dropout(call: Call) -> Alias | None:
    """Does nothing at inference; a call that draws random numbers even then stays as it is."""
    return None if call["train"] else Alias(call["input" if "input" in call.arguments else "self"])


def cast(call: Call) -> Layer | Alias | None:
    before, after = call["self"].meta["val"].dtype, call.node.meta["val"].dtype
    if before == torch.bool or before == after or (before.is_floating_point and after.is_floating_point):
        return Alias(call["self"], copies=before != after)  # all numbers are float32, truth values, too
    names: dict[object, ops.NumberType] = {torch.float32: "float32", torch.int32: "int32", torch.int64: "int64"}
    return Layer(lambda: ops.Cast(names[after]), (call["self"],), "cast") if after in names else None
