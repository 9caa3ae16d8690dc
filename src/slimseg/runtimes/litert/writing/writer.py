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
from slimseg.graph.orders import TO_NCHW, TO_NHWC, nhwc, nhwc_shape
from slimseg.runtimes.litert.writing import lowering
from slimseg.runtimes.lowering import without_lowering
from slimseg.tflite import file
from slimseg.tflite.schema import ModelBuilder, Storage


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
    unknown = without_lowering(folded, lowering.LOWERINGS, lowering.REFUSALS)
    if unknown:
        return _with_litert_torch(graph, unknown)
    try:
        return _Writer(folded, folded_into(graph, folded), storage).run()
    except Unsupported as error:
        return _with_litert_torch(graph, str(error))


class _Writer:
    """Writes the layers of the folded graph, in order."""

    def __init__(self, graph: Graph, folded: Mapping[str, tuple[str, ...]], storage: Storage) -> None:
        self.graph = graph
        self.folded = folded  # by layer, the names of the layers that were folded into it
        self.builder = ModelBuilder(storage)
        self.tensors: dict[fx.Node, int] = {}
        self.covers: dict[str, tuple[str, ...]] = {}
        self.names: dict[str, OperatorName] = {}

    def run(self) -> Written:
        source = self.graph.input
        self.tensors[source] = self.builder.tensor(source.name, nhwc_shape(self.graph.input_shape))
        for node in self.graph.layers():
            if node not in self.tensors and not is_padding_of_next(self.graph, node):
                self._write(node)
        outputs = [self.tensors[self.graph.output]]
        data = self.builder.finish([self.tensors[source]], outputs, self.graph.description, self.names)
        return Written(data, self.covers, self.names)

    def _write(self, node: fx.Node) -> None:
        layer = self.graph.layer(node)
        assert layer is not None
        last, fused = self._taken_in(node, layer)
        sources, padding, pads = self._sources(node)
        step = lowering.Step(
            node=node,
            layer=layer,
            inputs=tuple(self.tensors[source] for source in sources),
            name=node.name,
            fused=fused,
            padding=padding,
            input_shapes=tuple(nhwc_shape(self.graph.shape(source)) for source in sources),
            shape=nhwc_shape(self.graph.shape(last)),
        )
        first = len(self.builder.subgraph.operators)
        target = lowering.LOWERINGS[type(layer)](self.builder, step, layer)
        self.tensors[node] = self.tensors[last] = target
        covers = (*pads, node.name, *self.folded.get(node.name, ()))
        if last is not node:
            covers = (*covers, last.name)
            self.builder.rename(target, last.name)
        self.covers[last.name] = covers
        for result in self.builder.results(first):
            whole = result == last.name
            self.names[result] = OperatorName(node.name, covers) if whole else OperatorName(result, (node.name,))

    def _taken_in(self, node: fx.Node, layer: nn.Module) -> tuple[fx.Node, int]:
        """The last node that the operator of `node` computes, and the activation fused with it."""
        reader = only_consumer(node)
        if isinstance(layer, ops.Slice) and reader is not None and self._drops_axis(node, layer, reader):
            return reader, lowering.Fused.NONE
        if isinstance(layer, lowering.FUSE_INTO) and reader is not None:
            activation = self.graph.layer(reader)
            code = lowering.FUSABLE.get(type(activation)) if activation is not None else None
            if code is not None:
                return reader, code
        return node, lowering.Fused.NONE

    def _drops_axis(self, node: fx.Node, layer: ops.Slice, reader: fx.Node) -> bool:
        """Whether a slice of length 1 is followed by a reshape that only drops its axis, as in `x[..., 1]`."""
        reshape = self.graph.layer_as(reader, ops.Reshape)
        if reshape is None or layer.stop - layer.start != 1:
            return False
        kept, dropped = self.graph.shape(node), self.graph.shape(reader)
        order = TO_NHWC if len(kept) == 4 else tuple(range(len(kept)))
        in_file_order = reshape.channels_last or layer.dim == 1  # without channels the orders are the same
        return in_file_order and dropped == tuple(kept[dim] for dim in order if dim != layer.dim)

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
