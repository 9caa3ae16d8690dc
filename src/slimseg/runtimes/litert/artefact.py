"""Makes an `Artefact` from what a file states about itself and from measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from slimseg.errors import ModelError
from slimseg.graph.description import Description
from slimseg.results import Artefact
from slimseg.runtimes import host
from slimseg.runtimes.litert.tasks import has_task_metadata
from slimseg.tensors import port, quantise
from slimseg.tflite import file


def tflite_artefact(path: str | Path, description: Description | None = None, **measured: Any) -> Artefact:
    """An `Artefact` with a `.tflite` file's input, output, size and precision.

    Args:
        path: the file.
        description: preprocessing and meaning of the output, for a file that does not state them.
        measured: further fields of `Artefact`: `miou`, `disagreement`, `latency_ms`, `verified`, ...

    Raises:
        ModelError: the file is missing or damaged, or there is no description.
    """
    found = file.read(path)
    said = description or found.description
    if said is None:
        raise ModelError(f"{path} has no description of its input and output: write it with slimseg")
    return Artefact(
        target="tflite",
        files=(found.path.name,),
        size_bytes=found.size_bytes,
        precision="int8" if found.integer else found.weights,
        input=port(found.inputs[0]),
        output=port(found.outputs[0]),
        output_kind=said.output_kind,
        takes_pixels=_takes_pixels(found, said),
        for_mediapipe=has_task_metadata(found.path.read_bytes()),
        **measured,
    )


def _takes_pixels(found: file.File, said: Description) -> bool:
    """Whether the file's input is the image's bytes, unchanged."""
    every = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)
    pipeline = host.ImagePipeline(said.preprocessing, (1, 256))
    info = found.inputs[0]
    return info.dtype == "uint8" and np.array_equal(quantise(pipeline.normalised(every), info), every)
