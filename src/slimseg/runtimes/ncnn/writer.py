"""Write a Graph as `.param` and `.bin` of ncnn: scales and shifts folded, activations and pads fused, sizes explicit.

The files are written directly, and networks with layers that cannot be expressed are refused. pnnx, Tencent's
converter, is not used for these: it gave files of the wrong shape, and wrong circular padding without a warning. A test
of pnnx 20261020 on all layers of a Graph found more reasons. It loses the names of the layers, by which profiles, plans
and a bisection refer to the graph. It takes 0.2 to 4 s, while this writer takes 0.02 to 0.2 s, and a plan needs
hundreds of networks. It reports success, but writes layers that ncnn does not have, for slices (so for slim_reshape and
every ShuffleNet), asymmetric and nearest-exact resizing, depth-to-space, PReLU with a slope for every value, and
argmax. For other layers it needs as many ncnn layers as this writer, or more.

A layer of the file is named after the graph node that it computes (`layer_names`), its blob after the last node fused
with it.

ncnn's ArgMax gives one number for a whole blob. So a network that ends in the class of every pixel is written without
the argmax, and its description states that: the app takes the argmax.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import fx

from slimseg.errors import OutputError, Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.description import Description
from slimseg.graph.fold import fold_scales
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.graph.layer_names import OperatorName, folded_into, to_text
from slimseg.graph.output import final_argmax, output_kind
from slimseg.graph.written_out import layer_of, written_out
from slimseg.runtimes.lowering import without_lowering
from slimseg.runtimes.ncnn import lowering
from slimseg.runtimes.ncnn.file import save, with_description, with_names
from slimseg.runtimes.ncnn.lowering import groups
from slimseg.runtimes.ncnn.lowering.step import as_shape
from slimseg.runtimes.ncnn.net import Net, Storage, param_text, weight_bytes, with_splits

INPUT, OUTPUT = "in0", "out0"  # names of the input's and the output's blob, the same as pnnx's


@dataclass(frozen=True)
class Artefact:
    """A network's two files, and what they contain."""

    param: Path
    bin: Path
    storage: Storage  # type of the stored weights; biases are always float32
    input_name: str
    output_name: str
    input_shape: tuple[int, ...]  # (height, width, channels)
    output_shape: tuple[int, ...]  # (height, width, classes); unchanged if it has one or two dimensions
    description: Description  # of these files, whose kind of output may differ from the Graph's
    covers: dict[str, tuple[str, ...]]  # by layer of the file, the graph nodes that it computes

    @property
    def size_bytes(self) -> int:
        """Size of both files together."""
        return self.param.stat().st_size + self.bin.stat().st_size


@dataclass(frozen=True)
class Written:
    """The contents of the two files."""

    param: str
    bin: bytes
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    description: Description
    covers: dict[str, tuple[str, ...]]
    names: bytes  # the layers' names as a text, see `layer_names`


def write(graph: Graph, folder: str | Path, storage: Storage = "fp32", name: str = "model") -> Artefact:
    """Write `name`.param and `name`.bin into `folder`, which is created if it does not exist.

    Args:
        storage: "fp16" halves the `.bin`; the precision of the arithmetic depends on the device and ncnn's options.

    Raises:
        Unsupported: a layer cannot be expressed in ncnn.
        OutputError: the folder or the files cannot be written.
    """
    written = serialise(graph, storage)
    folder = Path(folder)
    param, weights = folder / f"{name}.param", folder / f"{name}.bin"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror or error}") from error
    save(with_description(with_names(written.bin, written.names), written.description), weights)
    save(written.param.encode(), param)
    return Artefact(
        param=param,
        bin=weights,
        storage=storage,
        input_name=INPUT,
        output_name=OUTPUT,
        input_shape=written.input_shape,
        output_shape=written.output_shape,
        description=written.description,
        covers=written.covers,
    )


def serialise(graph: Graph, storage: Storage = "fp32") -> Written:
    """The files' contents.

    Raises:
        Unsupported: a layer cannot be expressed in ncnn.
    """
    ended = without_argmax(graph)
    folded = fold_scales(ended)
    spelled = written_out(folded)
    unknown = without_lowering(spelled, lowering.LOWERINGS, lowering.REFUSALS)
    if not unknown:
        return _Writer(spelled, folded_into(ended, folded)).run(storage)
    raise Unsupported(
        f"{graph.name} has layers that slimseg cannot write for ncnn ({unknown}): export it to another runtime"
    )


def without_argmax(graph: Graph) -> Graph:
    """The graph without its final argmax and the layers after it; the graph itself if it has no final argmax."""
    argmax = final_argmax(graph)
    if argmax is None:
        return graph
    result = edit.ending_at(graph, producer(argmax).name)
    result.description = replace(graph.description, output_kind=output_kind(result))
    return result


class _Writer:
    """Writes the layers of the folded graph, in order."""

    def __init__(self, graph: Graph, folded: Mapping[str, tuple[str, ...]]) -> None:
        self.graph = graph
        self.folded = folded  # by layer, the names of the layers that were folded into it
        self.net = Net(OUTPUT)
        self.blobs: dict[fx.Node, int] = {}
        self.covers: dict[str, tuple[str, ...]] = {}
        self.results: dict[str, str] = {}  # by layer, the node whose value it computes, if that has another name
        self.folded_into_next: set[fx.Node] = set()

    def run(self, storage: Storage) -> Written:
        graph, source = self.graph, self.graph.input
        self.blobs[source] = self.net.input(INPUT, self._shape(source))
        for node in graph.layers():
            if node not in self.blobs and not self._folds_into_next(node):
                self._write(node)
        output = self._output()
        net = with_splits(self.net, output)
        return Written(
            param=param_text(net),
            bin=weight_bytes(net, storage),
            input_shape=_channels_last(self._shape(source)),
            output_shape=_channels_last(self._shape(graph.output)),
            description=graph.description,
            covers=self.covers,
            names=to_text({self.results.get(each.name, each.name): each for each in self._names(net).values()}),
        )

    def _names(self, net: Net) -> dict[str, OperatorName]:
        """Names by layer of the file. An added layer, such as a Split, belongs to the layer whose value it reads."""
        makers = {blob: layer.name for layer in net.layers for blob in layer.outputs}
        found = {net.layers[0].name: OperatorName(net.layers[0].name)}
        for layer in net.layers[1:]:
            covers = self.covers.get(layer.name)
            found[layer.name] = OperatorName(layer.name, covers or (found[makers[layer.inputs[0]]].layer,))
        return found

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        return lowering.unbatched(self.graph.shape(node))

    def _output(self) -> int:
        node = self.graph.output
        if len(self._shape(node)) > 3:
            raise Unsupported(
                f"{node.name}: the output for ncnn has one to three dimensions, unlike {self._shape(node)}"
            )
        if self.blobs[node] == self.blobs[self.graph.input]:
            raise Unsupported(f"{self.graph.name} has no layers, so there is nothing to write for ncnn")
        return as_shape(self.net, self.blobs[node], self._shape(node), f"{node.name}_map")

    def _folds_into_next(self, node: fx.Node) -> bool:
        """Whether a pad, of any value, becomes the padding of the convolution that is its only reader."""
        pad, reader = self.graph.layer_as(node, ops.Pad), only_consumer(node)
        if pad is None or reader is None or min(pad.padding) < 0 or any(pad.channels):
            return False
        layer = self.graph.layer(reader)
        if not lowering.pads(layer) or (pad.value != 0 and layer.padding not in (0, (0, 0), "valid")):
            return False
        self.folded_into_next.add(node)
        return True

    def _write(self, node: fx.Node) -> None:
        if not (self._write_slices(node) or self._write_shuffle(node)):
            self._write_one(node)

    def _write_slices(self, node: fx.Node) -> bool:
        pieces = groups.slices(self.graph, node)
        source = node.all_input_nodes[0]
        layer = self.graph.layer(node)
        is_mat = len(self._shape(source)) <= lowering.MOST_DIMS
        if not pieces or not is_mat or not isinstance(layer, ops.Slice) or layer.dim == 0:
            return False
        outputs = [(piece.name, self._shape(piece)) for piece in pieces]
        along = layer.dim - len(self.graph.shape(source)) + len(self._shape(source))
        lengths = tuple(shape[along] for _, shape in outputs)
        blob = as_shape(self.net, self.blobs[source], self._shape(source), f"{node.name}_map")
        made = self.net.add_many("Slice", node.name, (blob,), outputs, {0: lengths, 1: along})
        self.blobs.update(zip(pieces, made, strict=True))
        self.covers[node.name] = tuple(piece.name for piece in pieces)
        return True

    def _write_shuffle(self, node: fx.Node) -> bool:
        found = groups.shuffle(self.graph, node)
        if found is None:
            return False
        nodes, count = found
        source = self.blobs[node.all_input_nodes[0]]
        blob = self.net.add("ShuffleChannel", nodes[-1].name, (source,), self._shape(nodes[-1]), {0: count})
        self.blobs.update(dict.fromkeys(nodes, blob))
        self.covers[nodes[-1].name] = tuple(each.name for each in nodes)
        return True

    def _write_one(self, node: fx.Node) -> None:
        layer = self.graph.layer(node)
        assert layer is not None
        last, fused = self._taken_in(node)
        sources, pad = self._sources(node)
        step = lowering.Step(
            node=node,
            layer=layer,
            inputs=tuple(self.blobs[source] for source in sources),
            name=node.name,
            fused=fused,
            padding=(0, 0, 0, 0) if pad is None else pad.padding,
            pad_value=0.0 if pad is None else pad.value,
            input_shapes=tuple(self._shape(source) for source in sources),
            shape=self._shape(last),
            input_sizes=tuple(self.graph.shape(source) for source in sources),
            size=self.graph.shape(last),
        )
        lowering.require_dimensions(step)
        first = len(self.net.layers)
        self.blobs[node] = self.blobs[last] = lowering.LOWERINGS[type(layer)](self.net, step, layer)
        pads = () if pad is None else (node.all_input_nodes[0].name,)
        covers = (*pads, layer_of(node), *self.folded.get(node.name, ()), *((last.name,) if last is not node else ()))
        if last is not node:
            self.net.rename(self.blobs[last], last.name)
            self.results[node.name] = last.name
        names = [made.name for made in self.net.layers[first:]]
        self.covers.update({name: covers if name == node.name else (layer_of(node),) for name in names})

    def _taken_in(self, node: fx.Node) -> tuple[fx.Node, lowering.Activation]:
        """The last node that ncnn's layer for `node` computes, and the activation fused with it."""
        reader = only_consumer(node)
        if reader is not None and lowering.fuses(self.graph.layer(node)):
            activation = lowering.fused(self.graph.layer(reader))
            if activation:
                return reader, activation
        return node, {}

    def _sources(self, node: fx.Node) -> tuple[list[fx.Node], ops.Pad | None]:
        sources = [source for source in node.args if isinstance(source, fx.Node)]
        if sources[0] not in self.folded_into_next:
            return sources, None
        return [producer(sources[0]), *sources[1:]], self.graph.layer_as(sources[0], ops.Pad)


def _channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape
