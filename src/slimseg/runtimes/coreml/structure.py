"""Reads the contents of an `.mlpackage` from disk, and checks all that can be checked outside macOS."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from slimseg.errors import ModelError, one_line
from slimseg.graph.description import Description
from slimseg.runtimes.coreml import metadata, package
from slimseg.runtimes.coreml.neural_engine import NATIVE, Remark, remarks
from slimseg.runtimes.coreml.writer import package_bytes

_WEIGHTS = ("Data", "com.apple.CoreML", "weights")
_NUMBERS = {65552: "float16", 65568: "float32", 65600: "float64", 131104: "int32"}  # ArrayFeatureType.ArrayDataType
_LAYOUTS = {10: "gray", 20: "RGB", 30: "BGR"}  # ImageFeatureType.ColorSpace
_PLUMBING = ("const", "cast", "identity")
_SYSTEMS = {5: "iOS 14", 6: "iOS 15", 7: "iOS 16", 8: "iOS 17", 9: "iOS 18", 10: "iOS 26"}  # by specification version


@dataclass(frozen=True)
class Feature:
    """The input or the output of a package."""

    name: str
    kind: str  # "RGB image", "BGR image" or "multi-array"
    dtype: str  # numpy's name; "uint8" for an image
    shape: tuple[int, ...]  # NCHW; (1, height, width) for a mask
    sizes: tuple[tuple[int, int], ...] = ()  # all accepted sizes (height, width), if more than one
    text: str = ""  # description in the package


@dataclass(frozen=True)
class Structure:
    """A package's input and output, operations and weights."""

    input: Feature
    output: Feature
    system: str  # the oldest system that runs it
    precision: str  # precision of most operations: "float16" or "float32"
    operations: Mapping[str, int]  # number of operations by kind, without constants and casts
    unknown: tuple[str, ...]  # kinds of operations that no list has among those that the Neural Engine runs
    remarks: tuple[Remark, ...]  # operations that may be slow on the Neural Engine, or run elsewhere
    weights: int  # number of weights
    weight_bytes: int  # stored size of all constants
    compressed_share: float  # share of the weights, 0-1, that are stored with fewer bits than they are computed in
    size_bytes: int  # size of the whole package
    labels: tuple[str, ...]  # names of the classes in the preview's metadata
    previewed: bool  # whether Xcode's preview shows masks
    licence: str
    description: Description | None  # slimseg's own; None if slimseg did not write the package

    @property
    def for_neural_engine(self) -> bool:
        """Whether it computes in float16 and has only operations of `NATIVE`; remarks may still name slow chips."""
        return self.precision == "float16" and not self.unknown


def check(path: str | Path) -> Structure:
    """Read a package and all of its contents.

    Raises:
        ModelError: the package is missing, damaged, or not an ML Program, or does not have one input and one output.
        UserError: coremltools is not installed.
    """
    path = Path(path)
    coremltools = package.require()
    spec, function = _read(coremltools, path)
    said, user = spec.description, dict(spec.description.metadata.userDefined)
    kinds = Counter(str(op.op_type) for op in function.operations)
    weights = _weights(function)
    return Structure(
        input=_feature(said.input[0], 3),
        output=_feature(said.output[0]),
        system=_SYSTEMS.get(spec.specificationVersion, f"specification {spec.specificationVersion}"),
        precision=_precision(function),
        operations={kind: count for kind, count in kinds.items() if kind not in _PLUMBING and "constexpr" not in kind},
        unknown=tuple(sorted(set(kinds) - NATIVE)),
        remarks=tuple(remark for op in function.operations for remark in remarks(op)),
        weights=sum(count for count, _ in weights),
        weight_bytes=sum(file.stat().st_size for file in path.joinpath(*_WEIGHTS).glob("*")),
        compressed_share=sum(count for count, small in weights if small) / max(1, sum(count for count, _ in weights)),
        size_bytes=package_bytes(path),
        labels=tuple(metadata.preview_labels(user)),
        previewed=user.get(metadata.PREVIEW_TYPE) == "imageSegmenter",
        licence=str(said.metadata.license),
        description=metadata.read_description(user),
    )


def _read(coremltools: Any, path: Path) -> tuple[Any, Any]:
    if not path.is_dir():
        raise ModelError(f"{path} is not an .mlpackage folder: give the path of one")
    from coremltools.converters.mil.frontend.milproto.load import load

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spec = coremltools.models.utils.load_spec(str(path))
            program = load(spec, spec.specificationVersion, str(path.joinpath(*_WEIGHTS)))
    except Exception as error:
        raise ModelError(f"{path} cannot be read as an ML Program: {one_line(error)}") from error
    if len(spec.description.input) != 1 or len(spec.description.output) != 1:
        raise ModelError(f"{path} does not have one input and one output: export it from a segmentation network")
    return spec, program.functions["main"]


def _feature(feature: Any, channels: int = 0) -> Feature:
    if feature.type.WhichOneof("Type") == "imageType":
        image = feature.type.imageType
        sizes = tuple((int(size.height), int(size.width)) for size in image.enumeratedSizes.sizes)
        kind = f"{_LAYOUTS.get(image.colorSpace, 'unknown')} image"
        shape = (1, channels, int(image.height), int(image.width))
        return Feature(feature.name, kind, "uint8", shape, sizes, feature.shortDescription)
    array = feature.type.multiArrayType
    lengths = tuple(int(side) for side in array.shape)
    return Feature(feature.name, "multi-array", _NUMBERS[array.dataType], lengths, (), feature.shortDescription)


def _precision(function: Any) -> str:
    from coremltools.converters.mil.mil import types

    names = Counter(
        types.builtin_to_string(op.outputs[0].dtype)
        for op in function.operations
        if op.op_type not in _PLUMBING and op.outputs[0].dtype in (types.fp16, types.fp32)
    )
    return "float16" if names["fp16"] >= names["fp32"] else "float32"


def _weights(function: Any) -> list[tuple[int, bool]]:
    """For each constant tensor of the layers its number of values, and whether it is compressed."""
    result = []
    for op in function.operations:
        compressed = op.op_type.startswith("constexpr_")
        feeds_table = any(child.op_type.startswith("constexpr_") for child in op.outputs[0].child_ops)
        if (compressed or (op.op_type == "const" and not feeds_table)) and _is_float(op.outputs[0]):
            result.append((prod(op.outputs[0].shape), compressed))
    return result


def _is_float(value: Any) -> bool:
    from coremltools.converters.mil.mil import types

    return value.rank > 0 and value.dtype in (types.fp16, types.fp32)
