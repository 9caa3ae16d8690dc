"""Exports an `.mlpackage` for Core ML and checks it by reading it back; only Apple's systems can run it.

form          contents
float16       weights and arithmetic in 16 bits, for the Neural Engine
float32       both in 32 bits, for CPU and GPU
palettised    float16 with a table of 256 weights per layer
linear        float16 with weights in 8 bits and a scale per channel
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch

from slimseg.errors import Unsupported
from slimseg.graph.graph import Graph
from slimseg.graph.orders import nchw
from slimseg.graph.output import giving_map
from slimseg.results import Artefact, Port
from slimseg.runtimes import half_range, host
from slimseg.runtimes.coreml import structure, writer
from slimseg.runtimes.coreml.compression import WeightStorage
from slimseg.runtimes.exporter import Request, Written
from slimseg.runtimes.host import Pixels

_PRECISIONS = {
    "float16": "float16",
    "float32": "float32",
    "palettised": "float16, weights in lookup tables of 256 values",
    "linear": "float16, weights in 8 bits",
}
_UNRUN = "Its numbers were not compared: Core ML runs on macOS and iOS only."


def write(request: Request) -> Written:
    """Write the package of a request.

    Layers with values too large for float16 compute in float32.

    Raises:
        Unsupported: a layer cannot be expressed in Core ML, or the package was read back with other contents.
        OutputError: the folder cannot be written.
        UserError: coremltools is not installed.
    """
    graph, form = giving_map(request.graph), request.form or "float16"
    wide = () if form == "float32" else half_range.overflowing(graph, _tensor(graph, request.probes))
    made = writer.write(
        graph,
        request.folder / f"{request.stem}.mlpackage",
        "float32" if form == "float32" else "float16",
        cast(WeightStorage, form) if form in ("palettised", "linear") else "float",
        sizes=request.sizes,
        float32_layers=wide,
        palette=request.palette,
        licence=request.licence,
    )
    found = structure.check(made.path)
    _check(made, found)
    artefact = Artefact(
        target="coreml",
        files=(made.path.name,),
        size_bytes=made.size_bytes,
        precision=_PRECISIONS[form] + (f", {len(wide)} layers in float32" if wide else ""),
        input=Port(found.input.name, found.input.shape, found.input.dtype),
        output=Port(found.output.name, found.output.shape, found.output.dtype),
        output_kind=made.description.output_kind,
        takes_pixels=True,
        verified=_verified(found, fits=not wide),
        not_verified=(*_range(request, form), _UNRUN),
        remarks=_remarked(found, wide),
    )
    return Written(artefact, made.path, graph, is_float=form in ("float16", "float32"))


def _tensor(graph: Graph, images: Sequence[Pixels]) -> torch.Tensor:
    """Preprocessed images (N, 3, height, width)."""
    return nchw(np.concatenate(host.prepared(graph, images)))


def _check(made: writer.Artefact, found: structure.Structure) -> None:
    """Compare the package on disk with what was to be written.

    Raises:
        Unsupported: they differ.
    """
    ends = ((found.input.shape, made.input_shape), (found.output.shape, made.output_shape))
    if any(there != wanted for there, wanted in ends) or found.description != made.description:
        raise Unsupported(
            f"{made.path.name} has shapes {found.input.shape} to {found.output.shape} after writing, not "
            f"{made.input_shape} to {made.output_shape}: export to another target"
        )


def _verified(found: structure.Structure, fits: bool) -> tuple[str, ...]:
    operations = sum(found.operations.values())
    return (
        f"Read back: {found.input.kind} {found.input.shape[3]}x{found.input.shape[2]} in, {found.output.name} "
        f"{_sides(found.output.shape)} out, for {found.system} and later.",
        f"{operations} operations of {len(found.operations)} kinds"
        + (f", of which {', '.join(found.unknown)} not known to run on the Neural Engine" if found.unknown else "")
        + ("; all are known to run on the Neural Engine." if found.for_neural_engine and fits else "."),
    )


def _remarked(found: structure.Structure, wide: Sequence[str]) -> tuple[str, ...]:
    """Sentences on operations that may be slow on the device, one for each reason."""
    reasons: dict[str, list[str]] = {}
    for remark in found.remarks:
        reasons.setdefault(f"{remark.operation} {remark.why}", []).append(remark.name)
    sentences = [f"{why}: {_few(names)}." for why, names in reasons.items()]
    if wide:
        sentences.append(
            f"Values exceed the range of float16, so these layers do not run on the Neural Engine: {_few(wide)}."
        )
    return tuple(sentences)


def _range(request: Request, form: str) -> tuple[str, ...]:
    if form == "float32" or not request.drawn:
        return ()
    return ("Whether values fit float16 was checked on synthetic images only: give `images`.",)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")


def _sides(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
