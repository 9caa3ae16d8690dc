"""Parses an `.onnx` file as protobuf, within bounds; nothing is executed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto

from slimseg.errors import ModelError
from slimseg.onnx_format import wire

MAX_FILE_BYTES = 512 << 20
MAX_NODES = 10_000


def parse(path: Path) -> ModelProto:
    """Parse an `.onnx` file.

    Raises:
        ModelError: the file is missing, too large, damaged, or no ONNX file.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist: give the path of an .onnx file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ModelError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB: is it the right file?")
    data, proto = path.read_bytes(), ModelProto()
    wire.check(data, ModelProto.DESCRIPTOR, str(path))
    try:
        proto.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        raise ModelError(f"{path} is damaged or not an ONNX file: export the model again") from error
    if not proto.graph.node:
        raise ModelError(f"{path} is damaged or not an ONNX file: it holds no network; export the model again")
    if (count := sum(1 for _ in every(proto.graph))) > MAX_NODES:
        raise ModelError(f"{path} has {count} operators, more than the {MAX_NODES} that slimseg opens")
    return proto


def with_output(path: Path, place: int) -> bytes:
    """The bytes of a file with output number `place` as its only output. Raises: ModelError, as `parse`."""
    model = parse(path)
    kept = model.graph.output[place]
    del model.graph.output[:]
    model.graph.output.append(kept)
    return bytes(model.SerializeToString())


def every(graph: GraphProto) -> Iterator[NodeProto]:
    """All operators, also those in the branches of others."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from every(attribute.g)
