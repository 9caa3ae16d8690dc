"""Write a Graph as a float `.tflite`: NHWC, scales and shifts folded, activations and pads fused; weights in 32 or 16
bits, arithmetic in 32 bits.

An operator's output tensor is named after the node whose value it holds, so that calibrated ranges can be matched to
the graph; the operator itself is named after the layer that it computes (`layer_names`), so that profiles can be, too.
Writing takes milliseconds and needs no compiler. A graph with opaque nodes is written by `litert_torch` (an optional
extra) instead, which chooses its own names.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from slimseg.disk import scratch
from slimseg.errors import Unsupported
from slimseg.graph import ops
from slimseg.graph.fold import fold_scales, is_padding_of_next
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.graph.layer_names import OperatorName, folded_into
from slimseg.graph.orders import TO_NCHW, nhwc, nhwc_shape
from slimseg.graph.written_out import layer_of, written_out
from slimseg.runtimes.litert.writing import dimensions, lowering
from slimseg.runtimes.litert.writing.dimensions import Order, Value
from slimseg.runtimes.litert.writing.lowering.step import reshape_operator, transpose_operator
from slimseg.runtimes.lowering import weights, without_lowering
from slimseg.runtimes.permutation import transposes
from slimseg.tflite import file
from slimseg.tflite.schema import ModelBuilder, Storage

_MOST_TRANSPOSED, _MOST_RESHAPED = 6, 8  # dimensions that LiteRT's kernels take
_MOST_ON_GPU = 4  # dimensions that GPU delegates take: those that stay together are joined above that


@dataclass(frozen=True)
class Written:
    """The file's bytes, and for every output tensor the graph nodes that its operator computes, in `covers`."""

    data: bytes
    covers: dict[str, tuple[str, ...]]
    names: Mapping[str, OperatorName] = field(default_factory=dict)  # operators' names by result, see `layer_names`


def write(graph: Graph, path: Path, storage: Storage = "float32") -> dict[str, tuple[str, ...]]:
    """Write `graph` to `path` atomically; returns which nodes each operator (by tensor name) computes.

    Args:
        storage: type of the stored weights; the arithmetic is float32.

    Raises:
        Unsupported: a layer cannot be expressed in TFLite, and `litert-torch` is not installed or refuses it, too.
        OutputError: `path` cannot be written.
    """
    written = serialise(graph, storage)
    file.save(written.data, path)
    return written.covers


def serialise(graph: Graph, storage: Storage = "float32") -> Written:
    """The `.tflite` bytes of a graph.

    Raises:
        Unsupported: a layer cannot be expressed in TFLite, and `litert-torch` is not installed or refuses it, too.
    """
    folded = fold_scales(graph)
    spelled = written_out(folded)
    unknown = without_lowering(spelled, lowering.LOWERINGS, lowering.REFUSALS)
    if unknown:
        return _with_litert_torch(graph, unknown)
    try:
        return _Writer(spelled, folded_into(graph, folded), storage).run()
    except Unsupported as error:
        return _with_litert_torch(graph, str(error))


class _Writer:
    """Writes the layers of the folded graph, in order."""

    def __init__(self, graph: Graph, folded: Mapping[str, tuple[str, ...]], storage: Storage) -> None:
        self.graph = graph
        self.folded = folded  # by layer, the names of the layers that were folded into it
        self.builder = ModelBuilder(storage)
        self.tensors: dict[fx.Node, int] = {}
        self.orders: dict[fx.Node, Order] = {}  # in which the tensors hold the dimensions of their node
        self.views: set[fx.Node] = set()  # nodes that need no operator: they read a tensor in another way
        self.turned: dict[tuple[fx.Node, Order], int] = {}  # values that are also needed in another order
        self.covers: dict[str, tuple[str, ...]] = {}
        self.names: dict[str, OperatorName] = {}

    def run(self) -> Written:
        source = self.graph.input
        self.tensors[source] = self.builder.tensor(source.name, nhwc_shape(self.graph.input_shape))
        self.orders[source] = dimensions.standard(len(self.graph.input_shape))
        for node in self.graph.layers():
            if node not in self.tensors and not is_padding_of_next(self.graph, node):
                self._write(node)
        outputs = [self._output()]
        data = self.builder.finish([self.tensors[source]], outputs, self.graph.description, self.names)
        return Written(data, self.covers, self.names)

    def _write(self, node: fx.Node) -> None:
        layer = self.graph.layer(node)
        assert layer is not None
        last, fused = self._taken_in(node, layer)
        sources, padding, pads = self._sources(node)
        stored = [Value(self.graph.shape(each), self.orders[each], self._is_constant(each)) for each in sources]
        plan = dimensions.plan(layer, stored, self.graph.shape(node))
        order = plan.result
        if isinstance(layer, ops.Slice) and (reshape := self.graph.layer_as(last, ops.Reshape)) is not None:
            order = dimensions.without(order, layer.dim, reshape.channels_last)
        read = [Value(value.shape, order) for value, order in zip(stored, plan.inputs, strict=True)]
        step = lowering.Step(
            node=node,
            layer=layer,
            inputs=tuple(self._in_order(*each, node) for each in zip(sources, plan.inputs, strict=True)),
            name=node.name,
            fused=fused,
            padding=padding,
            input_shapes=tuple(value.stored for value in read),
            orders=plan.inputs,
            shape=Value(self.graph.shape(last), order).stored,
        )
        first = len(self.builder.subgraph.operators)
        target = lowering.LOWERINGS[type(layer)](self.builder, step, layer)
        self.tensors[node] = self.tensors[last] = target
        self.orders[node] = self.orders[last] = order
        covers = (*pads, layer_of(node), *self.folded.get(node.name, ()), *((last.name,) if last is not node else ()))
        if target in step.inputs or isinstance(layer, ops.Constant):
            self.views.add(node)
        else:
            self._name(target, last, node.name, covers)
        for made in self.builder.results(first):
            self.names.setdefault(made, OperatorName(made, (layer_of(node),)))

    def _name(self, target: int, node: fx.Node, name: str, covers: tuple[str, ...]) -> None:
        """Call a tensor after the node whose value it holds; in another order than usual, that is part of its name.

        A network that was read from such a file has these names already, and keeps them when it is written again.
        """
        order = self.orders[node]
        usual = order == dimensions.standard(len(order))
        ending = f"_as_{''.join(map(str, order))}"
        result = node.name if usual or node.name.endswith(ending) else node.name + ending
        self.builder.rename(target, result)
        self.covers[result] = covers
        self.names[result] = OperatorName(name, covers)

    def _in_order(self, source: fx.Node, order: Order, reader: fx.Node) -> int:
        """The tensor of a value in the order in which `reader` needs it, which is transposed once for all readers."""
        is_view = self._is_view_of(source, reader)
        if order == self.orders[source]:
            return self.tensors[source] if is_view else self._in_shape(source)
        if (source, order) not in self.turned and isinstance(layer := self.graph.layer(source), ops.Constant):
            name = f"{source.name}_as_{''.join(map(str, order))}"
            self.turned[source, order] = self.builder.constant(name, weights(layer.value, order))
        name, first = f"{source.name}_to_{''.join(map(str, order))}", len(self.builder.subgraph.operators)
        turned = self.turned.get((source, order)) or self._turn(source, name, order)
        self.turned[source, order] = turned if is_view else self._reshaped(turned, name, source, order)
        moved = source if isinstance(self.graph.layer(source), ops.Transpose) else reader
        for made in self.builder.results(first):
            self.names.setdefault(made, OperatorName(made, (layer_of(moved),)))
        return self.turned[source, order]

    def _is_view_of(self, source: fx.Node, reader: fx.Node) -> bool:
        """Whether `reader` is a view to which the tensor's shape makes no difference."""
        layer, rank = self.graph.layer(reader), len(self.graph.shape(source))
        return isinstance(layer, ops.Reshape) or (isinstance(layer, ops.Transpose) and rank > _MOST_ON_GPU)

    def _is_constant(self, node: fx.Node) -> bool:
        return isinstance(self.graph.layer(node), ops.Constant)

    def _turn(self, source: fx.Node, name: str, order: Order) -> int:
        """The values in `order`, in any shape: the tensor as it is, if only dimensions of length 1 change places."""
        shape, before = self.graph.shape(source), self.orders[source]
        if [dim for dim in before if shape[dim] > 1] == [dim for dim in order if shape[dim] > 1]:
            return self.tensors[source]
        stored, dims = Value(shape, before).stored, tuple(map(before.index, order))
        if len(dims) <= _MOST_ON_GPU:
            return transpose_operator(self.builder, self._in_shape(source), name, Value(shape, order).stored, dims)
        tensor = self.tensors[source]
        for number, (lengths, places) in enumerate(transposes(stored, dims, _MOST_TRANSPOSED)):
            if self.builder.shape(tensor) != lengths:
                tensor = reshape_operator(self.builder, tensor, f"{name}_split{number}", lengths)
            result = [lengths[place] for place in places]
            tensor = transpose_operator(self.builder, tensor, f"{name}_step{number}", result, places)
        return tensor

    def _in_shape(self, node: fx.Node) -> int:
        """The tensor of a value; one that was only reshaped so far now gets its RESHAPE, so that several become one."""
        tensor = self._reshaped(self.tensors[node], node.name, node, self.orders[node])
        if tensor != self.tensors[node]:
            self.tensors[node] = tensor
            self._name(tensor, node, node.name, (layer_of(node),))
        return tensor

    def _reshaped(self, tensor: int, name: str, node: fx.Node, order: Order) -> int:
        """A tensor with the values of `node` in their own shape, stored in `order`."""
        stored = Value(self.graph.shape(node), order).stored
        if self.builder.shape(tensor) == stored:
            return tensor
        if len(stored) > _MOST_RESHAPED:
            raise Unsupported(f"{node.name}: LiteRT's kernels take {_MOST_RESHAPED} dimensions, not {len(stored)}")
        return reshape_operator(self.builder, tensor, name, stored)

    def _output(self) -> int:
        """The tensor of the network's result: in the usual order, and computed by an operator of its own."""
        node = self.graph.output
        order = dimensions.standard(len(self.graph.shape(node)))
        if order == self.orders[node] and node not in self.views:
            return self.tensors[node]
        result = self._turn(node, node.name, order)
        if result == self.tensors[node]:
            result = reshape_operator(self.builder, result, node.name, Value(self.graph.shape(node), order).stored)
        self.orders[node] = order
        self._name(result, node, node.name, (layer_of(node),))
        return result

    def _taken_in(self, node: fx.Node, layer: nn.Module) -> tuple[fx.Node, int]:
        """The last node that the operator of `node` computes, and the activation fused with it."""
        reader = only_consumer(node)
        if isinstance(layer, ops.Slice) and reader is not None and self._drops_axis(node, layer, reader):
            return reader, lowering.Fused.NONE
        activation = self.graph.layer(reader) if reader is not None else None
        code = lowering.FUSABLE.get(type(activation)) if activation is not None else None
        if code is not None and reader is not None:
            source = self.graph.shape(node.all_input_nodes[0])
            if lowering.fuses(layer, source, self.graph.shape(node)):
                return reader, code
        return node, lowering.Fused.NONE

    def _drops_axis(self, node: fx.Node, layer: ops.Slice, reader: fx.Node) -> bool:
        """Whether a slice of length 1 is followed by a reshape that only drops its axis, as in `x[..., 1]`."""
        reshape = self.graph.layer_as(reader, ops.Reshape)
        if reshape is None or layer.stop - layer.start != 1:
            return False
        kept, dropped = self.graph.shape(node), self.graph.shape(reader)
        read = tuple(range(len(kept)))
        order = dimensions.without(read, layer.dim, reshape.channels_last)
        return len(dropped) == len(order) and all(
            dropped[after] == kept[before]
            for before, after in zip((dim for dim in read if dim != layer.dim), order, strict=True)
        )

    def _sources(self, node: fx.Node) -> tuple[list[fx.Node], tuple[int, int, int, int], tuple[str, ...]]:
        sources = [source for source in node.args if isinstance(source, fx.Node)]
        first = sources[0]
        pad = self.graph.layer_as(first, ops.Pad)
        if pad is None or not is_padding_of_next(self.graph, first):
            return sources, (0, 0, 0, 0), ()
        return [producer(first), *sources[1:]], pad.padding, (first.name,)


def _with_litert_torch(graph: Graph, unknown: str) -> Written:
    try:
        import litert_torch
    except ImportError:
        raise Unsupported(
            f"{graph.name} has layers that slimseg cannot write to .tflite itself ({unknown}): "
            "pip install 'slimseg[litert-torch]' to write it with litert-torch"
        ) from None
    example = torch.zeros(1, *graph.input_size, graph.input_shape[1])
    try:
        with warnings.catch_warnings(), scratch.folder() as folder:
            warnings.simplefilter("ignore")  # deprecations in litert_torch and its dependencies
            path = folder / "model.tflite"
            litert_torch.convert(_Nhwc(graph.module).eval(), (example,)).export(str(path))
            return Written(file.embed_description(path.read_bytes(), graph.description), {})
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Unsupported(f"{graph.name} ({unknown}) cannot be written by litert-torch either: {reason}") from error


class _Nhwc(nn.Module):
    """The network with input and output in NHWC, like every file of slimseg."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.module(image.permute(TO_NCHW))
        return nhwc(result)
