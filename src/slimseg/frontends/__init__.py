"""From a user's model (a file, a module, or the Python that builds one) to a Graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from slimseg.errors import ModelError, UnknownOperator, one_line
from slimseg.graph.description import OUTPUT_KINDS, Description
from slimseg.graph.preprocessing import Preprocessing, in_bytes

if TYPE_CHECKING:
    from torch import nn

    from slimseg.graph.graph import Graph
    from slimseg.graph.origin import Origin

Numbers = float | Sequence[float]
# The frontend module that opens each kind of file. Each has `from_file(path, input_size, output)`; `input_size` only
# matters for files that leave their own size open.
FILES = {".pt2": "torch", ".tflite": "tflite", ".onnx": "onnx", ".keras": "keras", ".h5": "keras"}


def load(
    model: str | Path | nn.Module,
    input_size: tuple[int, int] | None = None,
    *,
    weights: str | Path | None = None,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    channel_order: str | None = None,
    classes: Sequence[str] = (),
    output_kind: str | None = None,
    output: str | int | None = None,
    name: str = "model",
    verify: bool = True,
) -> Graph:
    """Open a trained network as a Graph, and run it once to check that it works.

    Args:
        model: an nn.Module, the path of a `.tflite`, `.onnx`, `.keras`, `.h5` or `.pt2` file, or `file.py:function` /
            `package.module:function` that returns an nn.Module (the Python is yours and is executed).
        input_size: (height, width) in pixels; required for modules and functions; files store their own.
        weights: a `.safetensors` or `.pth` file for the function's module; never unpickled.
        mean, std: the network's input is (byte - mean) / std; one number or one per channel, in units of 0-255 bytes.
            Numbers that only fit images in [0, 1], such as 0.5, are converted, and `Graph.notes` says so.
            Default: what the file states, else mean 0 and std 255.
        channel_order: "rgb" or "bgr".
        classes: class names in the order of the output's channels.
        output_kind: the meaning of the output: "logits", "probabilities" or "mask". Default: what the file states, else
            what its last layers imply (softmax and sigmoid give probabilities, argmax a mask).
        output: name or number of the output to use, where there are several. Default: the output called `out` or
            `logits`, else the map with the most pixels; a note says which.
        name: the Graph's name, where `model` is an nn.Module.
        verify: compare the outputs with those of the source's own runtime, which takes a fraction of a second (some
            seconds for Keras); `Graph.source_check` holds the largest difference, or why there was no comparison.

    Raises:
        ModelError: the model cannot be opened, fails when it runs, or its outputs differ from those of its source's own
            runtime. The message is one sentence.
    """
    from slimseg.frontends import source_check
    from slimseg.frontends import torch as torch_frontend
    from slimseg.frontends.trial_run import run_once
    from slimseg.graph.spellings import in_one_spelling

    if isinstance(model, str | Path):
        graph, source = _open(str(model), input_size, weights, output)
        graph.origins = _origins(str(model), weights)
    else:
        if input_size is None:
            raise ModelError(f"an nn.Module needs an input size: give input_size=(height, width) for {name}")
        graph, source = torch_frontend.open_module(model, _checked(input_size), name, output)
    graph = in_one_spelling(graph)
    graph.description = _described(graph.description, mean, std, channel_order, classes, output_kind)
    guess = graph.guess if mean is None and std is None else ""
    graph.notes = (*graph.notes, *filter(None, (in_bytes(mean, std)[2], guess)))
    trial = run_once(graph, str(model) if isinstance(model, str | Path) else name)
    if verify:
        source_check.attach(graph, source, trial)
    return graph


def as_written(path: str | Path) -> Graph:
    """The network of a model file with the file's own layers: in a `.tflite`, one node for each tensor, under its name.

    `load` brings networks of all formats into one spelling, in which several of a file's operators can be one layer.

    Raises:
        ModelError: the file cannot be opened.
    """
    return _open_file(Path(path), None, None)


def describe(
    path: str | Path,
    *,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    channel_order: str | None = None,
    output_kind: str | None = None,
    output: str | int | None = None,
) -> Description:
    """The preprocessing and output of a runtime's file: from its metadata, its first and last layers, or defaults.

    Raises:
        ModelError: the file is missing or damaged, or an argument makes no sense.
    """
    from slimseg.runtimes import registry

    description = registry.of(path).read(Path(path)).description
    if description is None:
        try:
            description = load(path, output=output, verify=False).description
        except UnknownOperator:
            description = Description(guessed_preprocessing(path)[0])
    return _described(description, mean, std, channel_order, (), output_kind)


def guessed_preprocessing(path: str | Path) -> tuple[Preprocessing, str]:
    """The preprocessing that the input of a runtime's file implies, and a note if it is a guess (else "").

    Raises:
        ModelError: the file is missing or damaged.
    """
    from slimseg.frontends.tflite.preprocessing import implied
    from slimseg.runtimes import registry

    described = registry.of(path).read(Path(path))
    return (Preprocessing(), "") if described.description or not described.inputs else implied(described.inputs[0])


def chosen_output(path: str | Path, output: str | int | None = None) -> tuple[int, str | None]:
    """The index of the output of a runtime's file that is used, and a note about the others if it was chosen here.

    Raises:
        ModelError: the file is missing or damaged, or has no such output.
    """
    from slimseg.frontends.outputs import Output, choose
    from slimseg.runtimes import registry

    shapes = [(info.name, info.shape) for info in registry.of(path).read(Path(path)).outputs]
    planar = [(name, (shape[0], shape[3], *shape[1:3]) if len(shape) == 4 else shape) for name, shape in shapes]
    try:
        return choose([Output(*each) for each in planar], output)
    except ModelError as error:
        raise ModelError(f"{path} {error}") from error


def opens(path: str | Path) -> bool:
    """Whether `load` opens files with this suffix."""
    return Path(path).suffix.lower() in FILES


def with_one_output(path: Path, output: str | int | None, folder: Path) -> tuple[Path, str]:
    """A file whose first output is the wanted one, as runtimes return the first: the file itself or a copy in `folder`.

    Args:
        output: name or number of the output; by default the likeliest one.

    Returns:
        The path, and a note about the other outputs.

    Raises:
        ModelError: the file is missing or damaged, or has no such output.
    """
    from slimseg.onnx_format import parsing
    from slimseg.tflite import file

    place, note = chosen_output(path, output)
    if place == 0:
        return path, note or ""
    copy = folder / path.name
    if path.suffix.lower() == ".onnx":
        copy.write_bytes(parsing.with_output(path, place))
    else:
        copy.write_bytes(file.with_output(path.read_bytes(), place))
    return copy, note or ""


def _open(
    model: str, input_size: tuple[int, int] | None, weights: str | Path | None, output: str | int | None
) -> tuple[Graph, Path | nn.Module]:
    """The Graph and its source: the file, or the module that the user's function returned."""
    from slimseg.frontends import torch as torch_frontend

    path = Path(model)
    if opens(path):
        if weights is not None:
            raise ModelError(f"{model} contains its weights: leave `weights` out")
        return _open_file(path, None if input_size is None else _checked(input_size), output), path
    if ":" in model and not path.exists():
        if input_size is None:
            raise ModelError(f"{model} needs an input size: give `input_size` HEIGHTxWIDTH")
        module = torch_frontend.from_factory(model, Path(weights) if weights else None)
        return torch_frontend.open_module(module, _checked(input_size), model.rpartition(":")[2], output)
    if not path.exists():
        raise ModelError(f"{model} does not exist: give a model file ({', '.join(FILES)}) or file.py:function")
    if path.suffix in (".pt", ".pth", ".bin", ".ckpt", ".safetensors"):
        raise ModelError(
            f"{model} holds weights without a network: give file.py:function that builds it, and `weights` {model}"
        )
    known = ", ".join(FILES)
    raise ModelError(f"{model} is not a model that slimseg can open: give a model file ({known}) or file.py:function")


def _origins(model: str, weights: str | Path | None) -> tuple[Origin, ...]:
    """The user's files that were opened: the model file, or the Python file and the weights file."""
    from slimseg.graph.origin import Origin

    given = [Path(model), Path(model.rpartition(":")[0]), Path(weights or "")]
    return tuple(Origin.of(path) for path in given if path.is_file())


def _open_file(path: Path, input_size: tuple[int, int] | None, output: str | int | None) -> Graph:
    """Open a model file, and resize the network's input if another input size is wanted."""
    from slimseg.errors import Unsupported
    from slimseg.graph import edit

    if not path.is_file():
        raise ModelError(f"{path} does not exist: give the path of a model file")
    frontend = import_module(f"slimseg.frontends.{FILES[path.suffix.lower()]}")
    try:
        graph: Graph = frontend.from_file(path, input_size, output)
        return graph if input_size in (None, graph.input_size) else edit.at_input_size(graph, input_size)
    except ModelError:
        raise
    except Unsupported as error:
        raise ModelError(str(error)) from error
    except Exception as error:  # readers raise ModelError for what they expect; any other error means a damaged file
        raise ModelError(
            f"{path} is damaged, or holds a network that slimseg cannot rebuild ({one_line(error)}): export it again"
        ) from error


def _checked(size: tuple[int, int]) -> tuple[int, int]:
    if len(size) != 2 or not all(isinstance(side, int) and 8 <= side <= 8192 for side in size):
        raise ModelError(f"input size {size} must be (height, width) between 8 and 8192 pixels")
    return size[0], size[1]


def _described(
    description: Description,
    mean: Numbers | None,
    std: Numbers | None,
    channel_order: str | None,
    classes: Sequence[str],
    output_kind: str | None,
) -> Description:
    """The file's own description, overridden by what the caller gives."""
    if output_kind is not None and output_kind not in OUTPUT_KINDS:
        raise ModelError(f"output kind {output_kind!r} is unknown: give one of {', '.join(OUTPUT_KINDS)}")
    own = description.preprocessing
    mean, std, _ = in_bytes(mean, std)
    preprocessing = Preprocessing.of(
        own.mean if mean is None else mean, own.std if std is None else std, channel_order or own.channel_order
    )
    return replace(
        description,
        preprocessing=preprocessing,
        classes=tuple(classes) or description.classes,
        output_kind=output_kind or description.output_kind,
    )
