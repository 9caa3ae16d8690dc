"""Write a Graph as a float `.onnx`: NCHW, scales and shifts folded, pads fused; weights in 32 or 16 bits.

A node and its result are named after the graph node whose value they hold, so that ranges of the int8 `.tflite`, values
and profiles can be matched to the graph. Activations stay nodes of their own: ONNX Runtime fuses them when it loads a
file. The model's metadata holds the description (preprocessing, classes, kind of output) and the names of the layers
that each operator computes, so that slimseg's own reader gives the same Graph.

In the float16 form weights are stored in 16 bits and widened by a Cast, which ONNX Runtime does once when it loads the
file; the arithmetic is that of the execution provider: float32 on a CPU, float16 on a phone's NPU. The file itself does
not ask for arithmetic in float16: on most CPUs that is slower, and values above 65504 would overflow on all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from onnx import ModelProto
from torch import fx, nn

from slimseg.disk import atomic
from slimseg.errors import Unsupported
from slimseg.graph import ops
from slimseg.graph.fold import fold_scales, is_padding_of_next
from slimseg.graph.graph import Graph, producer
from slimseg.graph.layer_names import OperatorName, folded_into
from slimseg.graph.written_out import layer_of, written_out
from slimseg.runtimes.lowering import without_lowering
from slimseg.runtimes.onnxruntime import lowering
from slimseg.runtimes.onnxruntime.model import ModelBuilder, Storage

_LARGEST_BYTES = 2**31 - 1  # of a protobuf message


def write(graph: Graph, path: Path, storage: Storage = "float32") -> None:
    """Write `graph` to `path` in one step.

    Args:
        storage: type of the stored weights; "float16 where exact" rounds none.

    Raises:
        Unsupported: a layer cannot be expressed in ONNX.
        OutputError: `path` cannot be written.
    """
    save(serialise(graph, storage), path)


def save(model: ModelProto, path: Path) -> None:
    """Replace `path` by the model.

    Raises:
        Unsupported: the model is too large for one file.
        OutputError: `path` cannot be written.
    """
    if model.ByteSize() > _LARGEST_BYTES:
        raise Unsupported(f"{path.name} would have more than 2 GB, which one .onnx file cannot hold")
    atomic.write(model.SerializeToString(deterministic=True), path, durable=False)


def serialise(graph: Graph, storage: Storage = "float32") -> ModelProto:
    """The model of a graph.

    Raises:
        Unsupported: a layer cannot be expressed in ONNX.
    """
    folded = fold_scales(graph)
    spelled = written_out(folded)
    unknown = without_lowering(spelled, lowering.LOWERINGS, lowering.REFUSALS)
    if unknown:
        raise Unsupported(
            f"{graph.name} has layers that slimseg cannot write as ONNX ({unknown}): export it to another target"
        )
    if spelled.output is spelled.input:
        raise Unsupported(f"{graph.name} has no layers, so there is nothing to write as ONNX")
    return _Writer(spelled, folded_into(graph, folded), storage).run()


class _Writer:
    """Writes the layers of the folded graph, in order."""

    def __init__(self, graph: Graph, folded: Mapping[str, tuple[str, ...]], storage: Storage) -> None:
        self.graph = graph
        self.folded = folded  # by layer, the names of the layers that were folded into it
        self.builder = ModelBuilder(storage, {graph.input.name, *(node.name for node in graph.layers())})
        self.values: dict[fx.Node, str] = {}
        self.stems: dict[nn.Module, str] = {}  # by layer, the first node that calls it
        self.names: dict[str, OperatorName] = {}

    def run(self) -> ModelProto:
        source = self.graph.input
        self.values[source] = self.builder.input(source.name, self.graph.input_shape)
        for node in self.graph.layers():
            if not is_padding_of_next(self.graph, node):
                self._write(node)
        output = self.values[self.graph.output]
        return self.builder.finish(self.graph.name, output, self.graph.description, self.names)

    def _write(self, node: fx.Node) -> None:
        layer = self.graph.layer(node)
        assert layer is not None
        sources = [source for source in node.args if isinstance(source, fx.Node)]
        padding, pads = (0, 0, 0, 0), list[str]()
        pad = self.graph.layer_as(sources[0], ops.Pad)
        if pad is not None and is_padding_of_next(self.graph, sources[0]):
            padding, pads = pad.padding, [sources[0].name]
            sources = [producer(sources[0]), *sources[1:]]
        step = lowering.Step(
            builder=self.builder,
            node=node,
            layer=layer,
            inputs=tuple(self.values[source] for source in sources),
            name=node.name,
            stem=self.stems.setdefault(layer, node.name),
            padding=padding,
            input_shapes=tuple(self.graph.shape(source) for source in sources),
            shape=self.graph.shape(node),
        )
        first = len(self.builder.graph.node)
        self.values[node] = lowering.LOWERINGS[type(layer)](step, layer)
        covers = (*pads, layer_of(node), *self.folded.get(node.name, ()))
        made = self.builder.made(first)
        self.names |= {name: OperatorName(name, covers if name == node.name else (layer_of(node),)) for name in made}
