"""`.onnx` files: read as protobuf, and rebuilt operator by operator from a table.

Nothing in the file is executed, and no other program reads it (pnnx was tried first: see docs/architecture.md).

    reader, tensors   from bytes to plain nodes and numpy constants, within bounds
    order             sorts the operators, each after those whose results it reads
    constants         computes what depends on constants only
    builder           the graph under construction; transposes are remembered, not emitted
    handlers          the table of operators; convolution, pooling, arithmetic, ... implement it
    functions         operators that are no layer, as functions in torch; in_torch opens them
    rarities          the same for rarer operators; resampling for every Resize that is no layer
    contributed       integer operators and those of onnxruntime; local_functions those that a file defines itself
    markers           positions of maxima and lists of tensors
    adaptive_pooling  recognises pooling whose windows differ in size; constant_layers computes layers of constants
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import TensorProto
from torch import fx, nn

from slimseg.errors import ModelError, SlimsegError, UnknownOperator, one_line, printable
from slimseg.frontends.onnx import adaptive_pooling, constant_layers, constants, markers
from slimseg.frontends.onnx.activation import Erf
from slimseg.frontends.onnx.builder import NHWC, Builder, Call, Value, plain
from slimseg.frontends.onnx.handlers import HANDLERS
from slimseg.frontends.onnx.order import ordered
from slimseg.frontends.onnx.reader import Input, Model, Node, read
from slimseg.frontends.onnx.tensors import Array
from slimseg.frontends.outputs import Output, choose
from slimseg.graph import ops
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.graph.output import output_kind
from slimseg.graph.preprocessing import Preprocessing
from slimseg.graph.spellings import activation as written_out
from slimseg.graph.spellings import channel_order

_NCHW = (0, 1, 2, 3)
_IMAGES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.UINT8)
_QUANTISED = "QuantizeLinear|QLinear|QGemm|Integer$"  # operators of quantised files


def from_file(path: Path, input_size: tuple[int, int] | None = None, output: str | int | None = None) -> Graph:
    """Open an `.onnx` file of opset 7 or later. An NHWC network becomes NCHW.

    Args:
        path: the file; a data file beside it must lie in the same folder.
        input_size: (height, width) in pixels, for a file that leaves its input size open.

    Raises:
        ModelError: the file is damaged, does not take one image, or leaves its size open and no `input_size` is given.
        UnknownOperator: it uses an operator outside the vocabulary; the message names it.
    """
    try:
        return _Opener(read(path), input_size).graph(output)
    except SlimsegError as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path} holds a network that slimseg cannot rebuild: {error}") from error
    except Exception as error:  # a damaged file can hold any nonsense that still parses
        raise ModelError(
            f"{path} holds a network that slimseg cannot rebuild ({one_line(error)}): export it again"
        ) from error


class _Opener:
    """Follows a file's nodes; `values` holds the activation or constant that each name stands for."""

    def __init__(self, model: Model, input_size: tuple[int, int] | None) -> None:
        self.model = model
        self.input_size = input_size
        self.builder = Builder(model)
        self.values: dict[str, Value | Array] = dict(model.constants)
        self.left_out: set[str] = set()  # values that no layer makes

    def graph(self, output: str | int | None) -> Graph:
        image = self._image()
        nodes = ordered(self.model)
        for place, node in enumerate(nodes):
            if node.op == "GatherND":
                self._find_pooling(nodes[place:])
            self._visit(node)
        result = self._result(output)
        self.builder.graph.output(result)
        graph = Graph(fx.GraphModule(self.builder.root, self.builder.graph), image.stored, name=self.model.path.stem)
        self._merge(graph)
        graph.description = Description(self._preprocessing(), output_kind=output_kind(graph))
        graph.weights = self.model.weights
        graph.notes = tuple(self.builder.notes)
        graph.is_quantised = any(re.search(_QUANTISED, node.op) for node in self.model.nodes)
        return graph

    def _merge(self, graph: Graph) -> None:
        """Replace written-out activations by their layers, since phones have no erf, and reorder channels.

        Raises:
            UnknownOperator: an erf remains that belongs to no GELU.
        """
        written_out.merge(graph)
        channel_order.fold(graph)
        graph.refresh()
        for node in graph.layers():
            if graph.layer_as(node, Erf) is not None:
                raise UnknownOperator(
                    f"{self.model.path} uses the operator Erf {node.name!r} outside of a GELU, which slimseg does not "
                    "know: replace it before the export"
                )

    def _image(self) -> Value:
        inputs = self.model.inputs
        if len(inputs) != 1:
            raise ModelError(f"{self.model.path} takes {len(inputs)} inputs, not one image")
        shape, order = _image_shape(self.model.path, self._with_channels(inputs[0]), self.input_size)
        if order == NHWC:
            self.builder.note("the file's network is NHWC; it is opened as NCHW, and mobile files are NHWC again")
        image = self.values[inputs[0].name] = self.builder.image(shape, order)
        return image

    def _with_channels(self, given: Input) -> Input:
        """The input, with the channels that the convolution needs that reads it if it leaves them open."""
        if len(given.shape) != 4 or given.shape[1] is not None or (given.shape[3] or 5) <= 4:
            return given
        for node in self.builder.consumers.get(given.name, []):
            weight = self.model.constants.get(node.inputs[1]) if node.op == "Conv" else None
            if weight is not None and weight.ndim == 4:
                channels = weight.shape[1] * int(node.attributes.get("group", 1))
                return replace(given, shape=(given.shape[0], channels, *given.shape[2:]))
        return given

    def _preprocessing(self) -> Preprocessing:
        """A network that takes bytes preprocesses them itself."""
        if self.model.inputs[0].kind == TensorProto.UINT8:
            return Preprocessing.of(0.0, 1.0)
        return Preprocessing()

    def _find_pooling(self, nodes: Sequence[Node]) -> None:
        """If adaptive average pooling begins here, emit it; the steps that it is written in are left out."""
        source = self.values.get(nodes[0].inputs[0])
        if not isinstance(source, Value):
            return
        try:
            found = adaptive_pooling.written_out(nodes, source, self.values, self.model.work)
        except ModelError:
            raise
        except Exception:  # these steps are something else; whatever is wrong with them is said where they are read
            return
        if found is None:
            return
        last, size = nodes[found[0]], found[1]
        pooled = self.builder.emit(last, nn.AdaptiveAvgPool2d(size), source.node)
        self.values[last.outputs[0]] = plain(pooled)
        self.left_out.update(name for node in nodes[: found[0]] for name in node.outputs)

    def _visit(self, node: Node) -> None:
        if any(name in self.values or name in self.left_out for name in node.outputs):
            return
        if not any(name in self.builder.consumers or name in self.model.outputs for name in node.outputs):
            return
        if node.op == "If":
            self._take_branch(node)
            return
        inputs = [self._given(node, name) if name else None for name in node.inputs]
        results: Sequence[Value | Array]
        if node.op in ("Shape", "Size", "EyeLike") and isinstance(inputs[0], Value):
            # Only the shape matters here: an array of that shape that takes no memory.
            inputs = [np.broadcast_to(np.zeros((), np.float32), inputs[0].shape)]
        if not any(isinstance(value, Value) for value in inputs):
            results = self._constants(node, inputs)
        else:
            results = self._layer(node, inputs)
        self.values.update(zip(node.outputs, results, strict=False))

    def _take_branch(self, node: Node) -> None:
        """Follow the operators of the branch that is always taken at this input size."""
        condition = self._given(node, node.inputs[0])
        if isinstance(condition, Value):
            raise UnknownOperator(
                f"{self.model.path} uses the operator {node}, which decides by what the image shows: slimseg opens "
                "networks that compute the same for every image"
            )
        branch = node.attributes["then_branch" if condition.reshape(-1)[0] else "else_branch"]
        self.values.update(branch.constants)
        for each in branch.nodes:
            self._visit(each)
        for name, result in zip(node.outputs, branch.outputs, strict=True):
            self.values[name] = self._given(node, result)

    def _given(self, node: Node, name: str) -> Value | Array:
        if name not in self.values:  # it is a further result of an operator, such as a dropout's mask
            raise UnknownOperator(
                f"{self.model.path}: the operator {node} reads {printable(name[:100])!r}, which is not the first "
                "result of its operator and which slimseg cannot rebuild: replace it before the export"
            )
        return self.values[name]

    def _constants(self, node: Node, inputs: Sequence[Value | Array | None]) -> tuple[Array, ...]:
        with self._named(node):
            given = [value for value in inputs if not isinstance(value, Value)]
            results = constants.fold(node, given, self.model.work)
            if results is None:
                results = self._by_layers(node, given)
        return tuple(
            result.astype(np.float32) if result.dtype.kind == "f" and result.dtype != np.float32 else result
            for result in results
        )

    def _by_layers(self, node: Node, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        handler = HANDLERS.get(node.op)
        if handler is None or not inputs or inputs[0] is None or inputs[0].dtype.kind != "f":
            raise self._unknown(node)
        return constant_layers.computed(self.builder, node, handler, inputs)

    def _layer(self, node: Node, inputs: Sequence[Value | Array | None]) -> tuple[Value, ...]:
        handler = HANDLERS.get(node.op)
        if any(isinstance(each, markers.Marker) for each in inputs):
            handler = markers.follow
        if handler is None:
            raise self._unknown(node)
        with self._named(node):
            result = handler(Call(self.builder, node, inputs))
        return result if isinstance(result, tuple) else (result,)

    @contextmanager
    def _named(self, node: Node) -> Iterator[None]:
        """Add the node's name to any error, mostly attributes of the wrong kind or length."""
        try:
            yield
        except SlimsegError:
            raise
        except Exception as error:
            raise ModelError(f"{self.model.path}: the operator {node} cannot be rebuilt ({one_line(error)})") from error

    def _unknown(self, node: Node) -> UnknownOperator:
        if node.op.startswith("com.microsoft.nchwc."):
            return UnknownOperator(
                f"{self.model.path} was optimised by onnxruntime for one processor ({node}): give the file as it was "
                "exported, or one optimised up to ORT_ENABLE_EXTENDED"
            )
        return UnknownOperator(
            f"{self.model.path} uses the operator {node}, which slimseg does not know: replace it before the export"
        )

    def _result(self, wanted: str | int | None) -> fx.Node:
        """The output map, in NCHW; layers at the end that only drop or add dimensions of length 1 are left out."""
        made = {name: node for node in self.model.nodes for name in node.outputs}
        found = {name: value for name in self.model.outputs if isinstance(value := self.values.get(name), Value)}
        outputs = [Output(name, value.stored) for name, value in found.items()]
        try:
            chosen, note = choose(outputs, wanted)
        except ModelError as error:
            raise ModelError(f"{self.model.path} {error}") from error
        if note:
            self.builder.note(note)
        name = outputs[chosen].name
        source = made.get(name)
        while source is not None and source.op in ("Squeeze", "Unsqueeze", "Identity"):
            before = self.values.get(source.inputs[0])
            if not isinstance(before, Value) or before.rank not in (3, 4):
                break
            name = source.inputs[0]
            source = made.get(name)
        value = self.values[name]
        assert isinstance(value, Value)
        return self._plain(value, source)

    def _plain(self, value: Value, source: Node | None) -> fx.Node:
        if value.rank == 4 and value.order == NHWC:
            self.builder.note("the file's output is NHWC; it is opened as NCHW, and mobile files are NHWC again")
        elif source is not None:
            value = self.builder.ordered(source, value, tuple(range(value.rank)))
        return self._without_channel(value.node)

    def _without_channel(self, result: fx.Node) -> fx.Node:
        """A mask is (1, height, width): the channel that ArgMax may keep is removed."""
        kept = result
        while isinstance(self.builder.layer(kept), ops.Cast) and len(kept.users) < 2:
            kept = kept.all_input_nodes[0]
        if not isinstance(self.builder.layer(kept), ops.Reshape) or len(kept.users) > 1:
            return result
        mask = kept.all_input_nodes[0]
        if not isinstance(self.builder.layer(mask), ops.ArgMax):
            return result
        kept.replace_all_uses_with(mask)
        return mask if result is kept else result


def _image_shape(
    path: Path, given: Input, input_size: tuple[int, int] | None
) -> tuple[tuple[int, int, int, int], tuple[int, ...]]:
    """The input's shape in NCHW, and the order of its dimensions in the file.

    Raises:
        ModelError: the input is not one image, or its size is open and no `input_size` is given.
    """
    if given.kind not in _IMAGES:
        raise ModelError(f"{path} takes {given.name!r}, which is not an image of floating-point numbers or bytes")
    if len(given.shape) != 4:
        raise ModelError(
            f"{path} takes {given.name!r} of shape {given.shape}, not one (1, channels, height, width) image"
        )
    batch, second, third, last = given.shape
    is_nhwc = last is not None and last <= 4 and all(side is None or side > last for side in (second, third))
    order = NHWC if is_nhwc else _NCHW
    channels, height, width = (given.shape[order.index(dim)] for dim in (1, 2, 3))
    if batch not in (None, 1):
        raise ModelError(f"{path} takes {batch} images at a time: export it with a batch of 1")
    if channels is None:
        raise ModelError(f"{path} has an input without a fixed number of channels: export it with a fixed number")
    if (height is None or width is None) and input_size is None:
        raise ModelError(f"{path} has an input without fixed height and width: give `input_size` HEIGHTxWIDTH")
    wanted_height, wanted_width = input_size or (0, 0)
    height, width = height or wanted_height, width or wanted_width
    if height * width * channels > 1 << 26:
        raise ModelError(f"{path} takes an image of {height}x{width} pixels, more than a phone can hold")
    return (1, channels, height, width), order


__all__ = ["from_file"]
