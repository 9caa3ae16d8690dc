"""The part of the TFLite metadata schema that an image segmenter needs, written as a flatbuffer.

Every table is a frozen dataclass whose fields state their vtable slot: the field's position in the public schemas of
MediaPipe, `metadata_schema.fbs` (1.5.0, file identifier "M001") and `image_segmenter_metadata_schema.fbs` (1.0.0,
"V001"). A union takes two slots, first its type and then its table. Fields that are never written are omitted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import flatbuffers

MODEL_IDENTIFIER, SEGMENTER_IDENTIFIER = b"M001", b"V001"
TENSOR_AXIS_LABELS = 2  # AssociatedFileType: one label per line, for the positions along an axis of the tensor
RGB = 1  # ColorSpaceType
NONE, SIGMOID, SOFTMAX = range(3)  # Activation
_NESTED_ALIGNMENT = 16  # `force_align` of a byte vector that contains a flatbuffer


def _slot(number: int, union_type: int = 0) -> dict[str, int]:
    return {"slot": number, "union_type": union_type}


@dataclass(frozen=True)
class Table:
    """Base of the tables. A field is text, bytes, a table, tables, floats, or the value of an enumeration (a byte)."""


@dataclass(frozen=True)
class FeatureProperties(Table):
    """Properties of a tensor whose content is plain numbers."""


@dataclass(frozen=True)
class ImageProperties(Table):
    color_space: int = field(default=RGB, metadata=_slot(0))


@dataclass(frozen=True)
class ImageContent(Table):
    """`Content` whose union `ContentProperties` has its second member."""

    properties: ImageProperties = field(default=ImageProperties(), metadata=_slot(1, union_type=2))


@dataclass(frozen=True)
class FeatureContent(Table):
    """`Content` whose union `ContentProperties` has its first member."""

    properties: FeatureProperties = field(default=FeatureProperties(), metadata=_slot(1, union_type=1))


@dataclass(frozen=True)
class NormalizationOptions(Table):
    """(byte − mean) / std, with one value for all channels or one for each."""

    mean: tuple[float, ...] = field(metadata=_slot(0))
    std: tuple[float, ...] = field(metadata=_slot(1))


@dataclass(frozen=True)
class Normalization(Table):
    """`ProcessUnit` whose union `ProcessUnitOptions` has its first member."""

    options: NormalizationOptions = field(metadata=_slot(1, union_type=1))


@dataclass(frozen=True)
class AssociatedFile(Table):
    """A file in the zip archive after the model."""

    name: str = field(metadata=_slot(0))
    description: str = field(metadata=_slot(1))
    type: int = field(metadata=_slot(2))


@dataclass(frozen=True)
class TensorMetadata(Table):
    name: str = field(metadata=_slot(0))
    description: str = field(metadata=_slot(1))
    content: ImageContent | FeatureContent = field(metadata=_slot(3))
    process_units: tuple[Normalization, ...] = field(default=(), metadata=_slot(4))
    associated_files: tuple[AssociatedFile, ...] = field(default=(), metadata=_slot(6))


@dataclass(frozen=True)
class ImageSegmenterOptions(Table):
    activation: int = field(metadata=_slot(0))


@dataclass(frozen=True)
class CustomMetadata(Table):
    """A flatbuffer of another schema; its reader finds it by `name`."""

    name: str = field(metadata=_slot(0))
    data: bytes = field(metadata=_slot(1))


@dataclass(frozen=True)
class SubGraphMetadata(Table):
    inputs: tuple[TensorMetadata, ...] = field(metadata=_slot(2))
    outputs: tuple[TensorMetadata, ...] = field(metadata=_slot(3))
    custom_metadata: tuple[CustomMetadata, ...] = field(metadata=_slot(9))


@dataclass(frozen=True)
class ModelMetadata(Table):
    name: str = field(metadata=_slot(0))
    description: str = field(metadata=_slot(1))
    subgraphs: tuple[SubGraphMetadata, ...] = field(metadata=_slot(3))
    license: str = field(default="", metadata=_slot(5))
    # The default is the first version with CustomMetadata.
    min_parser_version: str = field(default="1.5.0", metadata=_slot(7))


def pack(root: Table, identifier: bytes) -> bytes:
    """The bytes of a flatbuffer with `root` as its root table and `identifier` as its file identifier."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(_table(builder, root), identifier)
    return bytes(builder.Output())


def _table(builder: Any, table: Table) -> int:
    """Write a table and return its offset. Everything that the table points at is written first."""
    values = [(each, getattr(table, each.name)) for each in fields(table)]
    given = [(each.metadata, value) for each, value in values if value not in ("", ())]
    stored = [(about, value if isinstance(value, int) else _outside(builder, value)) for about, value in given]
    builder.StartObject(1 + max((about["slot"] for about, _ in stored), default=-1))
    for (about, place), (_, value) in zip(stored, given, strict=True):
        if about["union_type"]:
            builder.PrependUint8Slot(about["slot"] - 1, about["union_type"], 0)
        if isinstance(value, int):
            builder.PrependInt8Slot(about["slot"], place, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(about["slot"], place, 0)
    return int(builder.EndObject())


def _outside(builder: Any, value: Any) -> int:
    """Write the value that a field points at, and return its offset."""
    if isinstance(value, Table):
        return _table(builder, value)
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, bytes):
        return _vector(builder, value, 1, _NESTED_ALIGNMENT, builder.PrependByte)
    if isinstance(value[0], Table):
        offsets = [_table(builder, each) for each in value]
        return _vector(builder, offsets, 4, 4, builder.PrependUOffsetTRelative)
    return _vector(builder, value, 4, 4, builder.PrependFloat32)


def _vector(builder: Any, items: Any, size: int, alignment: int, prepend: Any) -> int:
    builder.StartVector(size, len(items), alignment)
    for item in reversed(items):
        prepend(item)
    return int(builder.EndVector())
