"""Exports a `.tflite` for LiteRT that MediaPipe Tasks loads unchanged, too, if MediaPipe supports such a network.

form       contents
float32    the source's own file if it is in float32, else the graph written anew
float16    the source's own file if it stores float16 weights, else the graph written anew; computes in float32
int8       the source's own int8 file, else the graph quantised on the user's images, taking RGB bytes
sm8750     the file in the source's precision, compiled for the NPU of this chip; int8-sm8750: in that precision
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from slimseg.errors import RuntimeFailure, Unsupported, UserError
from slimseg.graph import image_input
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.runtimes import host
from slimseg.runtimes.exporter import Request, Written
from slimseg.runtimes.litert import session
from slimseg.runtimes.litert.artefact import tflite_artefact
from slimseg.runtimes.litert.npu import compiled_file
from slimseg.runtimes.litert.runtime import LITERT
from slimseg.runtimes.litert.tasks import client, for_image_segmenter
from slimseg.tflite import file

CLIENT_IMAGES = 4
AGREEMENT = 99.0  # least percentage of equal pixels; not 100, since MediaPipe resizes masks in another way


def write(request: Request) -> Written:
    """Write the file of a request; `Written.artefact` states what was verified, and what was not.

    Raises:
        UserError: int8 was requested without images.
        Unsupported: LiteRT cannot express the network.
        ModelError: an existing file is damaged.
        OutputError: the folder cannot be written.
        RuntimeFailure: LiteRT refused the file or crashed.
    """
    form = request.form or request.precision
    if compiled := compiled_file.asked(form):
        return _compiled(request, compiled)
    plain = _plain(request, form)
    description = file.read_description(plain) or request.graph.description
    path = request.folder / f"{request.stem}.tflite"
    verified: list[str] = []
    not_verified = [_PHONE]
    unchanged = form in request.files
    try:
        content, folded = _for_mediapipe(request, plain, form, description)
        file.save(content, path)
        (verified if client.available() else not_verified).append(_client_says(path, request))
        unchanged = unchanged and not folded
    except Unsupported as error:
        file.save(file.embed_description(plain.read_bytes(), description), path)
        not_verified.append(f"MediaPipe's ImageSegmenter cannot run it: {error}.")
    artefact = tflite_artefact(path, file.read_description(path) or description)
    if form == "int8":
        artefact = replace(artefact, precision="int8")
    artefact = replace(artefact, verified=tuple(verified), not_verified=tuple(not_verified))
    same_as = plain.name if unchanged else ""
    return Written(artefact, path, request.graph, is_float=form != "int8", same_as=same_as)


def _compiled(request: Request, asked: compiled_file.Asked) -> Written:
    """The file compiled for the NPU of one chip. MediaPipe, which runs files on the CPU, gets no metadata."""
    plain = _plain(request, asked.precision or request.precision)
    description = file.read_description(plain) or request.graph.description
    path = request.folder / f"{request.stem}.tflite"
    made = compiled_file.write(plain, path, asked.soc, description, request.probes)
    artefact = tflite_artefact(plain, description, verified=made.verified, not_verified=made.not_verified)
    artefact = replace(
        artefact,
        files=(path.name,),
        size_bytes=path.stat().st_size,
        precision=f"{artefact.precision}, compiled for {asked.soc.name}",
        for_mediapipe=False,
        placement=made.placement,
    )
    return Written(artefact, path, request.graph, is_float=False)


_PHONE = "It ran on this computer's processor, not on a phone."


def _plain(request: Request, form: str) -> Path:
    """The network's file in that form, without MediaPipe's metadata."""
    if form in request.files:
        return request.files[form]
    path = request.folder / f"plain_{form}.tflite"
    if form == "int8" and request.drawn:
        raise UserError("int8 needs images for the ranges of activations: give `images`")
    if form == "int8":
        LITERT.deploy(request.graph, path, "int8", request.images)
    else:
        _write_float(request.graph, path, form)
    return path


def _write_float(graph: Graph, path: Path, form: str) -> None:
    """Write a float32 file with weights stored in the bits of `form`, whatever those of the original file."""
    asked = graph.copy()
    asked.weights = "float16" if form == "float16" else "float32"
    LITERT.write(asked, path)


def _for_mediapipe(request: Request, plain: Path, form: str, description: Description) -> tuple[bytes, bool]:
    """The file with MediaPipe's metadata, and whether its normalisation had to be folded into the first convolution.

    Folding is necessary if the channels are BGR or are normalised differently, which MediaPipe does not support.

    Raises:
        Unsupported: MediaPipe would refuse the network in any form, or make wrong masks from its output.
    """
    name, licence = request.graph.name, request.licence
    try:
        return for_image_segmenter(plain.read_bytes(), description, name, licence), False
    except Unsupported:
        if form == "int8" or not _normalises_by_channel(description):
            raise
        folded = image_input.fold(request.graph)
        path = request.folder / "folded.tflite"
        _write_float(folded, path, form)
        return for_image_segmenter(path.read_bytes(), folded.description, name, licence), True


def _normalises_by_channel(description: Description) -> bool:
    wanted = description.preprocessing
    return wanted.channel_order != "rgb" or len(set(wanted.mean)) > 1 or len(set(wanted.std)) > 1


def _client_says(path: Path, request: Request) -> str:
    """Load the file in MediaPipe's own client, if that is installed, and report how far its masks agree with LiteRT's.

    Images are resized to the input's size before, since MediaPipe shrinks images without antialiasing, which would
    change the masks although the file is right.

    Raises:
        Unsupported: MediaPipe refuses the file, or its masks agree too little.
    """
    if not client.available():
        return f"It was not loaded by MediaPipe, which is not installed here: {client.INSTALL}."
    size = request.graph.input_size
    images = [host.resize_image(image, size) for image in request.probes[:CLIENT_IMAGES]]
    app = host.App(file.read(path))
    try:
        theirs = client.category_masks(path, images)
    except RuntimeFailure as error:
        raise Unsupported(f"MediaPipe {client.version()} refuses it: {error}") from error
    same = []
    for image, mask in zip(images, theirs, strict=True):
        (output,) = session.predict(path, app.prepare(image)[None], raw=True)
        same.append(float((app.mask(output, size) == mask).mean()))
    percent = 100 * sum(same) / len(same)
    if percent < AGREEMENT:
        raise Unsupported(f"only {percent:.2f}% of the pixels of its masks equal LiteRT's")
    return f"MediaPipe {client.version()} loads it; {percent:.2f}% of the pixels of its category masks equal LiteRT's."
