"""What the files of an ncnn network state about themselves, read without ncnn.

slimseg appends its own data to the weights in the `.bin`: ncnn reads weights in order and ignores what follows them, so
no third file is needed that could get lost.

    weights | names of layers as text | its length, 4 bytes | "layers\\0\\0"
            | description as JSON     | its length, 4 bytes | "slimseg\\0"
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from slimseg.disk import atomic
from slimseg.errors import ModelError, RuntimeFailure
from slimseg.graph.description import Description
from slimseg.graph.layer_names import OperatorName, of_text
from slimseg.runtimes.ncnn.net import HALF_TAG, MAGIC
from slimseg.tensors import TensorInfo

_MARK = b"slimseg\0"
_NAMES_MARK = b"layers\0\0"
_TAIL = struct.Struct("<I8s")
_ARRAY_KEY = -23300
Value = float | tuple[float, ...] | str


@dataclass(frozen=True)
class LayerLine:
    """One layer of a `.param`, with the names of its blobs, and its parameters by key."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: dict[int, Value]
    result: str = ""  # in files of slimseg the graph node whose value it computes; else its name
    covers: tuple[str, ...] = ()  # graph nodes that it computes, see `graph.layer_names`

    def number(self, key: int, default: float = 0) -> float:
        value = self.params.get(key, default)
        return value if isinstance(value, int | float) else default


@dataclass(frozen=True)
class File:
    """A `.param` and the `.bin` beside it."""

    param: Path
    bin: Path
    size_bytes: int  # of both files
    layers: tuple[LayerLine, ...]
    input_name: str
    output_name: str
    input_shape: tuple[int, int, int]  # (height, width, channels); 0 where the file does not fix the size
    description: Description | None  # the one that slimseg embedded; None in files that slimseg did not write

    @property
    def path(self) -> Path:
        """Path of the main file, the `.param`."""
        return self.param

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The input as a `.tflite` would describe it: (1, height, width, channels), float32."""
        return (TensorInfo(self.input_name, (1, *self.input_shape), "float32"),)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The output likewise, without a shape, which the files do not state."""
        return (TensorInfo(self.output_name, (), "float32"),)


def read(path: str | Path) -> File:
    """Read a `.param` (or the `.bin` beside it).

    Raises:
        ModelError: one of the files is missing or damaged, or the network does not have one input and one output.
    """
    param = Path(path).with_suffix(".param")
    weights = param.with_suffix(".bin")
    layers, size = read_layers(param), _size(weights)
    noted = {name.name: (result, name.covers) for result, name in read_names(weights).items()}
    told = [(each, *noted.get(each.name, (each.name, ()))) for each in layers]
    inputs = [layer for layer in layers if layer.kind == "Input"]
    read_blobs = {blob for layer in layers for blob in layer.inputs}
    outputs = [blob for layer in layers for blob in layer.outputs if blob not in read_blobs]
    if len(inputs) != 1 or len(inputs[0].outputs) != 1 or len(outputs) != 1:
        raise ModelError(
            f"{param} has {len(inputs)} inputs and {len(outputs)} outputs: export a network with one of each"
        )
    height, width, channels = (int(inputs[0].number(key)) for key in (1, 0, 2))
    return File(
        param=param,
        bin=weights,
        size_bytes=param.stat().st_size + size,
        layers=tuple(replace(each, result=result, covers=covers) for each, result, covers in told),
        input_name=inputs[0].outputs[0],
        output_name=outputs[0],
        input_shape=(height, width, channels),
        description=read_description(weights),
    )


def weights(path: str | Path) -> str:
    """Type of a network's stored weights, from the tags before them: "float16" or "float32". Raises: ModelError."""
    found = Path(path).with_suffix(".bin")
    try:
        return "float16" if struct.pack("<I", HALF_TAG) in found.read_bytes() else "float32"
    except OSError as error:
        raise ModelError(f"{found} cannot be opened: {error.strerror}") from error


def read_layers(param: Path) -> tuple[LayerLine, ...]:
    """The layers of a `.param` in order. Raises: ModelError."""
    return _layers(_text(param), param)


def _text(param: Path) -> str:
    try:
        return param.read_text("ascii")
    except OSError as error:
        raise ModelError(f"{param} cannot be opened: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ModelError(
            f"{param} is not an ncnn .param file in text form: give one that pnnx or slimseg wrote"
        ) from error


def _size(weights: Path) -> int:
    try:
        return weights.stat().st_size
    except OSError as error:
        raise ModelError(
            f"{weights}, the weights that belong to the .param, cannot be opened: {error.strerror}"
        ) from error


def _layers(text: str, param: Path) -> tuple[LayerLine, ...]:
    lines = text.split("\n")
    try:
        if int(lines[0]) != MAGIC:
            raise ValueError("mark")
        count = int(lines[1].split()[0])
        layers = tuple(_layer(line.split()) for line in lines[2 : 2 + count])
        if len(layers) != count or count < 1:
            raise ValueError("layers")
    except (ValueError, IndexError) as error:
        raise ModelError(f"{param} is damaged, or not an ncnn .param file in text form: export it again") from error
    return layers


def _layer(words: list[str]) -> LayerLine:
    kind, name, inputs, outputs = words[0], words[1], int(words[2]), int(words[3])
    blobs, settings = words[4 : 4 + inputs + outputs], words[4 + inputs + outputs :]
    if min(inputs, outputs) < 0 or len(blobs) != inputs + outputs:
        raise ValueError("blobs")
    return LayerLine(kind, name, tuple(blobs[:inputs]), tuple(blobs[inputs:]), dict(map(_setting, settings)))


def _setting(word: str) -> tuple[int, Value]:
    left, _, right = word.partition("=")
    key = int(left)
    if key <= _ARRAY_KEY:
        return _ARRAY_KEY - key, tuple(float(value) for value in right.split(",")[1:])
    if "," in right:
        return key, tuple(float(value) for value in right.split(","))
    try:
        return key, float(right)
    except ValueError:
        return key, right


def with_names(weights: bytes, names: bytes) -> bytes:
    """The `.bin` with the names of its layers (`layer_names.to_text`) after its weights."""
    return weights + names + _TAIL.pack(len(names), _NAMES_MARK)


def with_description(weights: bytes, description: Description) -> bytes:
    """The `.bin` with `description` after its weights and names."""
    text = description.to_json().encode()
    return weights + text + _TAIL.pack(len(text), _MARK)


def read_description(weights: str | Path) -> Description | None:
    """The description after the weights, or None in a file that slimseg did not write. Raises: ModelError."""
    with Path(weights).open("rb") as stream:
        text, _ = _note(stream, stream.seek(0, os.SEEK_END), _MARK)
    return None if text is None else Description.from_json(text.decode(errors="replace"))


def read_names(weights: str | Path) -> dict[str, OperatorName]:
    """Names of the layers by their result; empty in a file that slimseg did not write."""
    with Path(weights).open("rb") as stream:
        _, start = _note(stream, stream.seek(0, os.SEEK_END), _MARK)
        text, _ = _note(stream, start, _NAMES_MARK)
    return of_text(text or b"")


def _note(stream: BinaryIO, end: int, mark: bytes) -> tuple[bytes | None, int]:
    """The text before `end` that its length and `mark` follow, and its start; None and `end` if there is none."""
    stream.seek(max(0, end - _TAIL.size))
    tail = stream.read(min(end, _TAIL.size))
    if len(tail) < _TAIL.size or not tail.endswith(mark):
        return None, end
    length, _ = _TAIL.unpack(tail)
    start = end - _TAIL.size - length
    if start < 0:
        return None, end
    stream.seek(start)
    return stream.read(length), start


def save(data: bytes, path: Path) -> None:
    """Replace `path` by `data` in one step: an interrupted write leaves the old file.

    Raises:
        OutputError: `path` cannot be written.
    """
    atomic.write(data, path, durable=False)


def damaged(path: str | Path, what: str) -> RuntimeFailure:
    """The error to raise if ncnn itself refuses a file."""
    return RuntimeFailure(f"{path}: ncnn {what}: export the network again")
