"""A `.tflite` that is compiled for the NPU of one chip ahead of time: it starts at once, and runs on that chip only.

In the file, one custom operator takes the place of each part of the network that the NPU runs, and the compiled parts
are stored beside them. An app runs it with LiteRT's `CompiledModel` and Qualcomm's libraries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from slimseg.disk import scratch
from slimseg.errors import SlimsegError
from slimseg.graph.description import Description
from slimseg.results.placement import Placement
from slimseg.runtimes import host
from slimseg.runtimes.host import Pixels
from slimseg.runtimes.litert import session
from slimseg.runtimes.litert.npu import compiler
from slimseg.runtimes.litert.npu.processor import Npu
from slimseg.runtimes.litert.npu.socs import SOCS, Soc
from slimseg.tflite import file

PRECISIONS = ("float32", "float16", "int8")
SIMULATED_IMAGES = 2  # few, since simulating a network takes seconds an image
_PHONE = "It ran on no phone; how fast it is there is not known."


@dataclass(frozen=True)
class Asked:
    """What a form of an export asks for."""

    precision: str  # one of `PRECISIONS`; empty: the source's
    soc: Soc


def asked(form: str) -> Asked | None:
    """What a form such as "sm8750" or "int8-sm8750" asks for; None if it names no chip."""
    precision, dash, name = form.rpartition("-")
    if dash and precision not in PRECISIONS:
        return None
    found = next((soc for soc in SOCS if soc.name.lower() == name), None)
    return None if found is None else Asked(precision, found)


def unrun(path: Path) -> str:
    """Why this machine cannot run a file: it is compiled for an NPU. Empty for other files."""
    parts = sum(each.op == compiler.PART for each in file.operators(path))
    return "it is compiled for the NPU of a phone, and runs there only" if parts else ""


@dataclass(frozen=True)
class Compiled:
    """A compiled file, and what is known about it."""

    placement: Placement  # with its compilation
    verified: tuple[str, ...]  # in sentences
    not_verified: tuple[str, ...]


def write(plain: Path, path: Path, soc: Soc, described: Description, images: Sequence[Pixels]) -> Compiled:
    """Compile a file for a chip's NPU, and compare masks of the simulated NPU with those of LiteRT's CPU kernels.

    Args:
        plain: the file to compile.
        path: the file to write.
        described: preprocessing and the meaning of the output.
        images: RGB (height, width, 3), of which the first two are used.

    Raises:
        UserError: the compiler is not installed.
        Unsupported: the NPU takes none of its layers.
        RuntimeFailure: the compiler crashed or refused the file.
        OutputError: `path` cannot be written.
    """
    npu = Npu(soc)
    placement = npu.partition(plain)
    with scratch.folder() as folder:
        # Before compiling: the compiled parts come after the end of the file's tables, and packing would lose them.
        source, out = folder / plain.name, folder / f"compiled_{path.name}"
        source.write_bytes(file.embed_description(plain.read_bytes(), described))
        compilation = compiler.compiled(source, soc, out)
        file.save(out.read_bytes(), path)
    placement = replace(placement, model=path.name, compilation=compilation)
    verified, not_verified = _simulated(npu, placement, plain, described, images[:SIMULATED_IMAGES])
    return Compiled(placement, verified, (*not_verified, _PHONE))


def _simulated(
    npu: Npu, placement: Placement, plain: Path, described: Description, images: Sequence[Pixels]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the simulator verified, and what it did not, in sentences."""
    if not placement.is_whole:
        return (), ("Its numbers were not compared: it cannot be simulated, as it runs in part on the CPU.",)
    try:
        same = _equal_percent(npu, plain, described, images)
    except SlimsegError as error:
        return (), (f"Its numbers were not compared: {error}.",)
    return (
        f"Qualcomm's simulator of this NPU computes it: {same:.2f}% of the pixels of {len(images)} images have the "
        "class that LiteRT gives on the CPU.",
    ), ()


def _equal_percent(npu: Npu, plain: Path, described: Description, images: Sequence[Pixels]) -> float:
    """Percentage of pixels whose class on the simulated NPU is that on the CPU."""
    app = host.App(file.read(plain), described)
    size = app.pipeline.size
    inputs = np.stack([app.prepare(host.resize_image(image, size)) for image in images])
    pairs = zip(npu.predict(plain, inputs), session.predict(plain, inputs, raw=True), strict=True)
    return 100 * float(np.mean([(app.mask(ours, size) == app.mask(theirs, size)).mean() for ours, theirs in pairs]))
