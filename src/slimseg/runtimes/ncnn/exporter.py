"""Exports a `.param` and a `.bin` for ncnn. The app takes the argmax: ncnn's ArgMax gives one number for a whole blob.

form    contents
fp16    weights stored in 16 bits; ncnn computes in 16 bits if the processor can, else in 32 bits
fp32    weights stored in 32 bits
"""

from __future__ import annotations

from typing import Literal, cast

from slimseg.graph.output import giving_map
from slimseg.results import Artefact, Port
from slimseg.runtimes.exporter import Request, Written
from slimseg.runtimes.ncnn import package, writer

_PRECISIONS = {"fp16": "float16 weights", "fp32": "float32"}
_ARITHMETIC = "It ran in float32 here; phones with half precision (ARMv8.2) compute in float16 by default."


def write(request: Request) -> Written:
    """Write the files of a request.

    Raises:
        Unsupported: a layer cannot be expressed in ncnn.
        OutputError: the folder cannot be written.
    """
    storage = cast(Literal["fp16", "fp32"], request.form or "fp16")
    graph = giving_map(request.graph)
    made = writer.write(graph, request.folder, storage, request.stem)
    run = package.available()
    artefact = Artefact(
        target="ncnn",
        files=(made.param.name, made.bin.name),
        size_bytes=made.size_bytes,
        precision=_PRECISIONS[storage],
        input=Port(made.input_name, _channels_first(made.input_shape), "float32"),
        output=Port(made.output_name, _channels_first(made.output_shape), "float32"),
        output_kind=made.description.output_kind,
        not_verified=(
            _ARITHMETIC if run else f"It was not run, because ncnn is not installed here ({package.INSTALL}).",
        ),
    )
    said = writer.without_argmax(graph)
    return Written(artefact, made.param, said, is_float=True, others=(made.bin,))


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[2], *shape[:2]) if len(shape) == 3 else shape
