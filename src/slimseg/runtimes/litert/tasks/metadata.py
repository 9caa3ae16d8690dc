"""TFLite metadata with which MediaPipe Tasks' `ImageSegmenter` loads a file.

    file       the model's flatbuffer, with these in its buffer "TFLITE_METADATA"
                   input:  RGB image, (byte − mean) / std
                   output: labels.txt, a label for each channel
                   "SEGMENTER_METADATA": the activation that turns the output into confidences
    after it   a zip archive with labels.txt, not compressed

The following is what `ImageSegmenter` accepts, read from its sources and tested with the Linux wheel 1.2.2. For some
files that it accepts without a warning it computes wrong masks; `with_task_metadata` refuses those, too.

- Input: one tensor (1, height, width, 3), float32 with one mean and std ("Per-channel image normalization is not
  available"), or uint8, which receives the image's bytes whatever its scale. int8 is refused. Pixels are always RGB: a
  network for BGR is loaded, but its colours are swapped.
- Output: one tensor (1, h, w, classes), float32; int8 and uint8 are dequantised. A flat output (1, h·w) is treated as
  h·w classes of one pixel. An int32 mask is loaded, but its bits are read as floats. (If there were two outputs, the
  first would be read as a quality score.)
- Activation: SOFTMAX or SIGMOID is applied to the output for the confidence masks. Category masks need no activation,
  except with one channel: then the confidence is compared with 0.5, and the mask is 0 for the class, 255 elsewhere.
- Sizes: the image is resized to the input bilinearly without antialiasing, where pixel x of the input is at x · W / w
  in the image (no half-pixel centres); both masks have the size of the image. The category mask is the argmax of the
  output resized with aligned corners; confidence masks are resized with half-pixel centres.

Compared with `host.App.mask` on 6 to 13 photographs of the input's size, these shares of the category mask's pixels
are equal: camvid_unet 100.0% (int8 99.9%), slimmed to half-size logits 99.6%, prisma-net and slim_reshape 100.0%. For
images of other sizes, which MediaPipe resizes in another way than slimseg, 97.4% to 99.8%; with images resized in
MediaPipe's way, 99.2% or more (slim_reshape in int8: 98.2%). An app that shrinks images a lot should do that itself.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as tflite

from slimseg.errors import Unsupported
from slimseg.graph.description import Description
from slimseg.runtimes.litert.tasks import schema
from slimseg.runtimes.litert.tasks.ends import Ends
from slimseg.runtimes.litert.tasks.fit import is_bytes
from slimseg.tflite import file
from slimseg.tflite import metadata as stored

METADATA_NAME = b"TFLITE_METADATA"
SEGMENTER_METADATA = "SEGMENTER_METADATA"
LABELS = "labels.txt"


def with_task_metadata(data: bytes, description: Description, name: str = "ImageSegmenter", licence: str = "") -> bytes:
    """The same model with metadata for `ImageSegmenter`, replacing any older; `description` is embedded, too.

    Args:
        data: a `.tflite` file.
        description: preprocessing of its input and meaning of its output; without class names there are no labels.
        name: name of the model, for readers of the metadata.
        licence: licence of the model, likewise.

    Raises:
        ModelError: the file is not a `.tflite`, or damaged.
        Unsupported: `ImageSegmenter` would refuse the file, or compute wrong masks.
    """
    model = file.parse(file.embed_description(data, description), Path(name))
    ends = Ends(model, name)
    source, result = ends.input, ends.output
    _check(source, result, description, name)
    labels = _labels(description, int(result.shape[-1]), name)
    metadata = schema.ModelMetadata(
        name=name,
        description="Semantic segmentation: the class of every pixel of an image.",
        subgraphs=(_subgraph(description, source, result, bool(labels)),),
        license=licence,
    )
    stored.write(model, METADATA_NAME, schema.pack(metadata, schema.MODEL_IDENTIFIER))
    return file.pack(model) + (_archive(LABELS, "\n".join(labels) + "\n") if labels else b"")


def has_task_metadata(data: bytes) -> bool:
    """Whether a `.tflite` file has TFLite metadata. Raises: ModelError."""
    return any(entry.name == METADATA_NAME for entry in file.parse(data, Path("model")).metadata or [])


def _check(source: Any, result: Any, description: Description, name: str) -> None:
    """Refuse a network for which `ImageSegmenter` fails or computes wrong masks. Raises: Unsupported."""
    wanted = description.preprocessing
    if wanted.channel_order != "rgb" or len(set(wanted.mean)) > 1 or len(set(wanted.std)) > 1:
        raise Unsupported(
            f"{name} needs (byte - {wanted.mean}) / {wanted.std} in {wanted.channel_order}, but MediaPipe's "
            "ImageSegmenter supplies RGB with one mean and std: fold these into the first convolution "
            "(graph.image_input.fold)"
        )
    if len(source.shape) != 4 or source.shape[0] != 1 or source.shape[3] != 3:
        raise Unsupported(
            f"{name} needs {_shape(source)}, but MediaPipe's ImageSegmenter supplies (1, height, width, 3)"
        )
    if source.type != tflite.TensorType.FLOAT32 and not is_bytes(source, wanted):
        raise Unsupported(
            f"{name} needs integers other than the image's bytes, which MediaPipe's ImageSegmenter does not supply: "
            "put a QUANTIZE before its input (tasks.fitted)"
        )
    if description.output_kind == "mask" or _is_mask(result):
        raise Unsupported(
            f"{name} outputs a mask of class indices, which MediaPipe's ImageSegmenter would read as scores: "
            "export logits or probabilities"
        )
    if len(result.shape) != 4:
        raise Unsupported(
            f"{name} outputs {_shape(result)}, but MediaPipe's ImageSegmenter needs (1, height, width, classes): "
            "put a RESHAPE after it (tasks.fitted)"
        )


def _is_mask(tensor: Any) -> bool:
    return tensor.type not in (tflite.TensorType.FLOAT32, tflite.TensorType.INT8, tflite.TensorType.UINT8)


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(side) for side in tensor.shape)


def _labels(description: Description, channels: int, name: str) -> tuple[str, ...]:
    """Single-line class names, one per channel; a single channel is the second of two classes. Raises: Unsupported."""
    classes = description.classes[1:] if channels == 1 and len(description.classes) == 2 else description.classes
    if classes and len(classes) != channels:
        raise Unsupported(f"{name} has {channels} channels, and {len(classes)} class names: name all channels or none")
    return tuple(" ".join(each.split()) for each in classes)


def _subgraph(description: Description, source: Any, result: Any, labelled: bool) -> schema.SubGraphMetadata:
    normalisation = schema.NormalizationOptions(description.preprocessing.mean[:1], description.preprocessing.std[:1])
    image = schema.TensorMetadata(
        name=_name(source),
        description="RGB image",
        content=schema.ImageContent(),
        process_units=(schema.Normalization(normalisation),),
    )
    labels = schema.AssociatedFile(LABELS, "the class of each channel", schema.TENSOR_AXIS_LABELS)
    scores = schema.TensorMetadata(
        name=_name(result),
        description=f"{description.output_kind} of every class",
        content=schema.FeatureContent(),
        associated_files=(labels,) if labelled else (),
    )
    options = schema.ImageSegmenterOptions(_activation(description, result))
    custom = schema.CustomMetadata(SEGMENTER_METADATA, schema.pack(options, schema.SEGMENTER_IDENTIFIER))
    return schema.SubGraphMetadata((image,), (scores,), (custom,))


def _name(tensor: Any) -> str:
    return str((tensor.name or b"").decode(errors="replace"))


def _activation(description: Description, result: Any) -> int:
    if description.output_kind == "probabilities":
        return schema.NONE
    return schema.SIGMOID if result.shape[-1] == 1 else schema.SOFTMAX


def _archive(name: str, text: str) -> bytes:
    """A zip archive of one file, with the same bytes every time. Its offsets are from its own start, as required."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(name), text)  # with a fixed date
    return stream.getvalue()
