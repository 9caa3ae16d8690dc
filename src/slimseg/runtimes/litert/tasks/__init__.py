"""Files for MediaPipe Tasks: the operators and metadata that its `ImageSegmenter` needs in a `.tflite`."""

from __future__ import annotations

from slimseg.graph.description import Description
from slimseg.runtimes.litert.tasks.fit import fitted
from slimseg.runtimes.litert.tasks.metadata import has_task_metadata, with_task_metadata

__all__ = ["fitted", "for_image_segmenter", "has_task_metadata", "with_task_metadata"]


def for_image_segmenter(
    data: bytes, description: Description, name: str = "ImageSegmenter", licence: str = "", two_channels: bool = True
) -> bytes:
    """A `.tflite` file that MediaPipe's `ImageSegmenter` loads: `fitted`, then `with_task_metadata`.

    Raises:
        ModelError: the file is not a `.tflite`, or damaged.
        Unsupported: the network has no form that gives correct masks there.
    """
    return with_task_metadata(fitted(data, description, two_channels), description, name, licence)
