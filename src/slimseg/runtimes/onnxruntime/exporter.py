"""Exports an `.onnx` for ONNX Runtime on Android, iOS, Windows or a server.

form       contents
float32    weights in 32 bits
float16    weights stored in 16 bits, widened when the file is loaded; the provider chooses the arithmetic
int8       QDQ with exactly the ranges of the int8 `.tflite`: that of the source, else one made from the user's images
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto

from slimseg.errors import UserError
from slimseg.graph import image_input
from slimseg.results import Artefact, Port
from slimseg.runtimes import host, registry
from slimseg.runtimes.exporter import Request, Written
from slimseg.runtimes.onnxruntime import file, package, writer
from slimseg.runtimes.onnxruntime.quantising import qdq
from slimseg.runtimes.onnxruntime.runtime import ONNXRUNTIME
from slimseg.tensors import TensorInfo, quantise

_PRECISIONS = {"float32": "float32", "float16": "float16 weights", "int8": "int8"}
_PHONE = "It ran in the CPU provider on this computer, not on a phone, nor in the provider of an NPU."


def write(request: Request) -> Written:
    """Write the file of a request.

    Raises:
        Unsupported: a layer cannot be expressed in ONNX.
        UserError: int8 was requested without images.
        OutputError: the folder cannot be written.
    """
    path = request.folder / f"{request.stem}.onnx"
    form = request.form or _usual(request)
    if form == "int8":
        _write_int8(request, path)
    else:
        graph = request.graph.copy()
        graph.weights = "float16" if form == "float16" else "float32"
        ONNXRUNTIME.write(graph, path)
    found = file.read(path)
    unrun = f"It was not run, because onnxruntime is not installed here ({package.INSTALL})."
    artefact = Artefact(
        target=ONNXRUNTIME.target,
        files=(path.name,),
        size_bytes=found.size_bytes,
        precision=_PRECISIONS[form],
        input=_port(found.inputs[0]),
        output=_port(found.outputs[0]),
        output_kind=request.graph.description.output_kind,
        takes_pixels=_takes_pixels(found),
        not_verified=(_PHONE if package.available() else unrun,),
    )
    return Written(artefact, path, request.graph, is_float=form != "int8")


def _usual(request: Request) -> str:
    """The form if none is requested: that of the source, but int8 only if there are ranges for it."""
    if request.precision != "int8":
        return request.precision
    return "float32" if request.drawn and _twin(request) is None else "int8"


def _write_int8(request: Request, path: Path) -> None:
    found = _twin(request)
    if found is not None:
        writer.save(found, path)
    elif request.drawn:
        raise UserError("int8 needs images for the ranges of activations: give `images`")
    else:
        ONNXRUNTIME.deploy(request.graph, path, "int8", request.images)


def _twin(request: Request) -> ModelProto | None:
    """The network with the ranges of the source's own int8 file; None if there is none, or its layers have other names.

    The file of a run of `slim` may take bytes: then the normalisation is folded into the first layer here, too.
    """
    own = request.files.get("int8")
    if own is None or registry.of(own) is not registry.DEFAULT:
        return None
    takes_bytes = registry.DEFAULT.read(own).inputs[0].dtype == "uint8"
    graph = image_input.fold(request.graph) if takes_bytes else request.graph
    model = writer.serialise(graph)
    return qdq.quantised(model, own) if qdq.fits(model, own) else None


def _port(info: TensorInfo) -> Port:
    """An input or output as it is stored in the file: planes."""
    shape = info.shape if len(info.shape) != 4 else (info.shape[0], info.shape[3], *info.shape[1:3])
    return Port(info.name, shape, info.dtype, info.scale, info.zero_point)


def _takes_pixels(found: file.File) -> bool:
    """Whether the input is the image's bytes, unchanged."""
    info, said = found.inputs[0], found.description
    if info.dtype != "uint8" or said is None:
        return False
    every = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)
    pipeline = host.ImagePipeline(said.preprocessing, (1, 256))
    return np.array_equal(quantise(pipeline.normalised(every), info), every)
