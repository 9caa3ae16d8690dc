"""Matrix products of two activations: matmul, bmm, einsum, and attention, which is two products and a softmax."""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx, nn

from slimseg.frontends.aten.call import Call, Chain, Layer
from slimseg.graph import ops


def matrix_product(call: Call) -> Layer | None:
    """matmul and bmm; a constant matrix on the right is a linear layer without bias."""
    second = "mat2" if "mat2" in call.arguments else "other"
    if not call.is_value(second) and (layer := _linear(call, second)) is not None:
        return layer
    first, other = call.shape("self"), call.shape(second)
    if len(first) < 3 or first[:-2] != other[:-2]:
        return None  # a vector, or matrices that are broadcast
    return Layer(ops.MatMul, (call["self"], call[second]), "matmul")


def _linear(call: Call, name: str) -> Layer | None:
    matrix = call.tensor(name)
    if matrix is None or matrix.ndim != 2 or len(call.output_shape) < 2:
        return None

    def build() -> nn.Module:
        layer = nn.Linear(matrix.shape[0], matrix.shape[1], bias=False)
        layer.weight = nn.Parameter(matrix.detach().T.contiguous())
        return layer

    return Layer(build, (call["self"],), "linear", call.owner(name), call.key())


def einsum(call: Call) -> Chain | None:
    """A sum of products of two activations, whose labels are all of them batch, rows, columns or summed over.

    Both tensors are brought into the order of one matrix product: (batch, rows, summed) and (batch, columns, summed).
    """
    equation, operands = str(call["equation"]).replace(" ", ""), tuple(call["tensors"])
    labels, arrow, result = equation.partition("->")
    parts = labels.split(",")
    if not arrow or len(parts) != 2 or "." in equation:
        return None
    left, right = parts
    if any(len(set(part)) != len(part) for part in (left, right, result)):
        return None  # a diagonal
    batch = [label for label in left if label in right and label in result]
    summed = [label for label in left if label in right and label not in result]
    rows = [label for label in left if label not in right]
    columns = [label for label in right if label not in left]
    if not batch or set(result) != {*batch, *rows, *columns} or result[0] != left[0] or result[0] != right[0]:
        return None
    lengths = {
        label: int(length)
        for part, operand in zip(parts, operands, strict=True)
        for label, length in zip(part, operand.meta["val"].shape, strict=True)
    }
    made = _Chain(lengths)
    first = made.matrix(operands[0], left, batch, rows, summed)
    second = made.matrix(operands[1], right, batch, columns, summed)
    made.add(Layer(lambda: ops.MatMul(transposed=True), (first, second), "einsum"))
    made.result([*batch, *rows, *columns], result)
    return Chain(tuple(made.layers))


class _Chain:
    """Layers of an einsum, and the lengths of its labels."""

    def __init__(self, lengths: dict[str, int]) -> None:
        self.lengths = lengths
        self.layers: list[Layer] = []

    def add(self, layer: Layer) -> int:
        self.layers.append(layer)
        return len(self.layers) - 1

    def matrix(
        self, value: fx.Node | int, labels: str, batch: list[str], kept: list[str], summed: list[str]
    ) -> fx.Node | int:
        """(batch..., kept, summed): in this order, the last two joined from as many labels as there are."""
        value = self._ordered(value, list(labels), [*batch, *kept, *summed])
        if len(kept) == len(summed) == 1:
            return value
        return self._reshaped(value, (*(self.lengths[label] for label in batch), self._size(kept), self._size(summed)))

    def result(self, labels: list[str], wanted: str) -> None:
        shape = tuple(self.lengths[label] for label in labels)
        value: fx.Node | int = len(self.layers) - 1
        if len(shape) != len(wanted) or len(labels) != len(wanted):
            raise AssertionError(labels)
        value = self._reshaped(value, shape)
        self._ordered(value, labels, list(wanted))

    def _size(self, labels: list[str]) -> int:
        return math.prod(self.lengths[label] for label in labels)

    def _ordered(self, value: fx.Node | int, labels: list[str], wanted: list[str]) -> fx.Node | int:
        dims = tuple(labels.index(label) for label in wanted)
        if dims == tuple(range(len(dims))):
            return value
        return self.add(Layer(lambda: ops.Transpose(dims), (value,), "permute"))

    def _reshaped(self, value: fx.Node | int, shape: tuple[int, ...]) -> fx.Node | int:
        return self.add(Layer(lambda: ops.Reshape(shape, channels_last=False), (value,), "reshape"))


def attention(call: Call) -> Chain | None:
    """softmax(query · keyᵀ · scale + mask) · value (Vaswani et al., "Attention Is All You Need", 2017, eq. 1)."""
    shapes = [call.shape(name) for name in ("query", "key", "value")]
    query, key = shapes[:2]
    if call["dropout_p"] or call["is_causal"] or len({shape[:-2] for shape in shapes}) != 1 or len(query) < 3:
        return None
    mask = _mask(call, (*query[:-1], key[-2]))
    if call["attn_mask"] is not None and mask is None:
        return None
    scale = float(call["scale"]) if call["scale"] is not None else 1 / math.sqrt(query[-1])
    last = len(query) - 1
    layers = [
        Layer(lambda: ops.Affine(torch.tensor(scale)), (call["query"],), "scale"),
        Layer(lambda: ops.MatMul(transposed=True), (0, call["key"]), "scores"),
    ]
    if mask is not None:
        layers.append(Layer(lambda: ops.Affine(shift=mask), (1,), "mask"))
    layers.append(Layer(lambda: nn.Softmax(last), (len(layers) - 1,), "softmax"))
    layers.append(Layer(ops.MatMul, (len(layers) - 1, call["value"]), "attention"))
    return Chain(tuple(layers))


def _mask(call: Call, scores: tuple[int, ...]) -> Tensor | None:
    """A constant that is added to the scores, without the batch if that is one image; None if it is computed."""
    mask = call.tensor("attn_mask")
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape).masked_fill(~mask, float(torch.finfo(torch.float32).min) / 2)
    full = (1,) * (len(scores) - mask.ndim) + tuple(mask.shape)
    if full[0] not in (1, scores[0]) or len(full) != len(scores):
        return None
    return mask.detach().reshape(full[full[0] == 1 :])
