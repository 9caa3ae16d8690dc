"""An opened network is compared with its source's own runtime: a reader that misreads is told at once.

.tflite     LiteRT, in the child process
.onnx       onnxruntime where it is installed, in the child process
nn.Module   the module itself, in PyTorch
.pt2        its ATen calls one by one, in PyTorch: torch's own reader would import and unpickle what the file asks for
.keras .h5  not compared: Keras executes what a file asks for
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from slimseg.errors import ModelError, SlimsegError, Unsupported, one_line
from slimseg.frontends import archive
from slimseg.graph import costs
from slimseg.graph.graph import Graph
from slimseg.graph.source_check import SourceCheck
from slimseg.runtimes import child, host

Array = np.ndarray[Any, Any]
TOLERANCE = 0.01  # of the largest value; rounding makes some 1e-5
MASK_TOLERANCE_PERCENT = 1.0  # of the pixels, where nothing but a mask is given, in which scores may have been equal
TIMEOUT_S = 20.0
MOST_WORK = 5 * 10**10  # multiply-accumulates: about two seconds
_NHWC = (0, 2, 3, 1)


def check(graph: Graph, source: Path | nn.Module) -> SourceCheck:
    """Compare on noise. A quantised source was opened de-quantised: there a difference is no mistake.

    Raises:
        ModelError: the outputs of a float source are others than those of its own runtime.
    """
    if not isinstance(source, nn.Module) and source.suffix.lower() in (".keras", ".h5"):
        return SourceCheck(reason="Keras executes what such a file asks for")
    if sum(costs.cost(graph, node).macs for node in graph.layers()) > MOST_WORK:
        return SourceCheck(reason="it takes too long to run twice while it is opened")
    image = _noise(graph)
    with torch.no_grad():
        own = graph(image)
    try:
        runtime, outputs = _outputs(graph, source, image)
    except SlimsegError as error:
        return SourceCheck(reason=str(error))
    except Exception as error:  # whatever the user's own module raises
        return SourceCheck(reason=one_line(error))
    found = [_compared(runtime, own, theirs) for output in outputs for theirs in _laid_out(output, own)]
    if not found:
        return SourceCheck(reason=f"{runtime} gives no output of the shape {tuple(own.shape)}")
    result = min(found, key=lambda each: (each.relative_difference, each.differing_percent))
    _require_equal(graph, result, own)
    return result


def _require_equal(graph: Graph, result: SourceCheck, own: Tensor) -> None:
    is_mask = own.ndim == 3 and not own.is_floating_point()
    differs = result.differing_percent > MASK_TOLERANCE_PERCENT if is_mask else result.relative_difference > TOLERANCE
    if differs and not graph.is_quantised:
        raise ModelError(
            f"{graph.name} opens, but gives other outputs than {result.runtime} does (by up to "
            f"{100 * result.relative_difference:.1f}% of the largest value, and another class for "
            f"{result.differing_percent:.1f}% of the pixels): slimseg misreads one of its layers; please report it"
        )


def _noise(graph: Graph) -> Tensor:
    """Bytes at random, as the network's preprocessing makes them its input; the same at every call."""
    _, channels, height, width = graph.input_shape
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    if channels == 3:
        value = host.ImagePipeline(graph.description.preprocessing, (height, width))(pixels)
    else:
        value = (pixels / 255).astype(np.float32)
    return torch.from_numpy(value).permute(2, 0, 1)[None].contiguous()


def _outputs(graph: Graph, source: Path | nn.Module, image: Tensor) -> tuple[str, list[Array]]:
    """The runtime's name, and everything that it gives.

    Raises:
        Unsupported: it cannot be asked here; ModelError, RuntimeFailure: it refuses or crashes.
    """
    if isinstance(source, nn.Module):
        return "PyTorch", [value.numpy() for value in _tensors(_eager(source, image))]
    suffix = source.suffix.lower()
    if suffix == ".pt2":
        return "PyTorch", [value.numpy() for value in _called(source, image)]
    if suffix == ".tflite":
        return "LiteRT", [_litert(graph, source, image)]
    if suffix == ".onnx":
        if find_spec("onnxruntime") is None:
            raise Unsupported("onnxruntime is not installed")
        call = "slimseg.frontends.source_check:run_onnx"
        return "onnxruntime", child.call(call, str(source), image.numpy(), timeout_s=TIMEOUT_S, about=source)
    raise Unsupported(f"{source} has no runtime of its own")


def _eager(module: nn.Module, image: Tensor) -> Any:
    was_training = module.training
    try:
        with torch.no_grad():
            return module.eval()(image)
    finally:
        module.train(was_training)


def _called(path: Path, image: Tensor) -> list[Tensor]:
    """Every output of a `.pt2` file, whose ATen calls are run in their order."""
    program, _ = archive.read_program(path)
    values: dict[fx.Node, Any] = {node: parameter.tensor for node, parameter in program.parameters.items()}
    values[program.image] = image.clone()  # a call may be in place
    with torch.no_grad():
        for node in program.graph.nodes:
            if node.op == "call_function":
                arguments = fx.node.map_arg((node.args, node.kwargs), lambda each: values[each])
                values[node] = node.target(*arguments[0], **arguments[1])
    return [values[node] for _, node in program.outputs if isinstance(values.get(node), Tensor)]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)


def _litert(graph: Graph, path: Path, image: Tensor) -> Array:
    from slimseg.runtimes.litert import session

    if graph.source is None:
        raise Unsupported("its input or output is laid out otherwise than the network's here")
    return session.predict(path, image.permute(0, 2, 3, 1).contiguous().numpy(), timeout_s=TIMEOUT_S)


def run_onnx(path: str, image: Array) -> list[Array]:
    """Every output of an `.onnx` file for an NCHW image. For the child."""
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    is_nhwc = given.shape[1] != image.shape[1] and given.shape[3] == image.shape[1]
    values = image.transpose(_NHWC) if is_nhwc else image
    kinds = {"tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(uint8)": np.uint8}
    kind = kinds.get(given.type, np.float32)
    values = np.rint(values).clip(0, 255).astype(kind) if kind == np.uint8 else values.astype(kind)
    results = session.run(None, {given.name: np.ascontiguousarray(values)})
    return [np.asarray(value) for value in results if isinstance(value, np.ndarray)]


def _laid_out(output: Array, own: Tensor) -> Iterator[Array]:
    """The output as ours lies: as it is, or in the other order of dimensions, or without dimensions of length 1."""
    shape = tuple(own.shape)
    if output.shape == shape:
        yield output
    if output.ndim == 4 and tuple(output.shape[dim] for dim in (0, 3, 1, 2)) == shape:
        yield output.transpose(0, 3, 1, 2)
    elif output.shape != shape and tuple(n for n in output.shape if n > 1) == tuple(n for n in shape if n > 1):
        yield output.reshape(shape)


def _compared(runtime: str, own: Tensor, theirs: Array) -> SourceCheck:
    ours, other = own.double().numpy(), theirs.astype(np.float64)
    largest = max(float(np.abs(other).max()), 1e-12)
    difference = float(np.nan_to_num(np.abs(ours - other), nan=0.0, posinf=0.0).max()) / largest
    if not np.array_equal(np.isfinite(ours), np.isfinite(other)):
        difference = float("inf")
    return SourceCheck(runtime, difference, 100 * float((_classes(ours) != _classes(other)).mean()))


def _classes(values: Array) -> Array:
    """Indices of the largest scores; one channel and masks are compared as whole numbers."""
    return values.argmax(1) if values.ndim == 4 and values.shape[1] > 1 else np.rint(values)
