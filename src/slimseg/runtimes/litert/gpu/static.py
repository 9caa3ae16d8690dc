"""The verdict without a driver: from a list of what the delegate takes, which was found by asking it.

`operators.json` says when and on which version. LiteRT's own check without a driver (`ModelAnalyzer` with
`gpu_compatibility`) is not used: in ai-edge-litert 2.3.0 it finds every file compatible, also those that the delegate
refuses.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from slimseg.results.placement import Placement
from slimseg.runtimes.litert.gpu import verdict
from slimseg.tflite import costs, file

MOST_DIMENSIONS = 4
PER_GROUP = 4  # a grouped convolution with another number of inputs per group ends in a crash or in wrong values
_TYPES = {"float32", "float16", "int8", "uint8", "int32", "int16", "bool"}


def placement(path: Path, why: str) -> Placement:
    """Where the list says that every operator of a file runs.

    Args:
        why: why the delegate itself was not asked.

    Raises:
        ModelError: the file is damaged.
    """
    found, model = file.opened(path)
    tensors = costs.Tensors(model)
    refused = {}
    for number, operator in enumerate(model.subgraphs[0].operators or []):
        if reason := next(_reasons(model, tensors, operator), ""):
            refused[number] = reason
    return verdict.placed(found, model, refused, f"a list of {known()['date']} ({why})", is_own_verdict=False)


@functools.cache
def known() -> Any:
    """The list: names of operators that are `taken` and `refused`, and what else was found out about them."""
    return json.loads(Path(__file__).with_name("operators.json").read_text())


def _reasons(model: Any, tensors: costs.Tensors, operator: Any) -> Iterator[str]:
    """Why an operator is not taken."""
    listed = known()
    name, version = tensors.op_name(operator), model.operatorCodes[operator.opcodeIndex].version
    if name in listed["refused"]:
        yield "the delegate does not have this operator"
    elif name not in listed["taken"]:
        yield "it is not on the list of operators that the delegate takes"
    newest = listed["newest_version"].get(name, version)
    if version > newest:
        yield f"the delegate takes it up to version {newest}, and not {version}"
    read = tensors.activations(operator)
    for index in (*read, *(int(each) for each in operator.outputs)):
        if len(tensors.shape(index)) > MOST_DIMENSIONS:
            yield f"the delegate takes {MOST_DIMENSIONS} dimensions, and not {len(tensors.shape(index))}"
        if (kind := costs.dtype_name(tensors.tensor(index))) not in _TYPES:
            yield f"the delegate does not take values of type {kind}"
    if name in listed["not_one_tensor_twice"] and len(read) > len(set(read)):
        yield "the delegate does not take one tensor as both inputs"
    yield from _by_options(name, tensors, operator, read)


def _by_options(name: str, tensors: costs.Tensors, operator: Any, read: list[int]) -> Iterator[str]:
    options = operator.builtinOptions
    if name == "CONV_2D" and read:
        per_group = tensors.shape(int(operator.inputs[1]))[3]
        if per_group != tensors.shape(read[0])[3] and per_group % PER_GROUP:
            yield f"the delegate needs a multiple of {PER_GROUP} input channels in every group, and not {per_group}"
    if name == "TRANSPOSE_CONV" and read and options is not None and options.padding == schema.Padding.SAME:
        sides = zip(tensors.shape(read[0])[1:3], tensors.shape(int(operator.outputs[0]))[1:3], strict=False)
        if any(before * stride != after for (before, after), stride in zip(sides, _strides(options), strict=False)):
            yield "the delegate computes it wrongly: with SAME, its output must be its input times the stride"
    if name == "STRIDED_SLICE" and getattr(options, "shrinkAxisMask", False):
        yield "the delegate does not take slices that drop a dimension"
    if name == "MIRROR_PAD" and getattr(options, "mode", False):
        yield "the delegate pads by reflection without the border only"
    if name == "GATHER" and len(operator.inputs) > 1 and len(tensors.shape(int(operator.inputs[1]))) > 1:
        yield "the delegate takes indices of one dimension only"


def _strides(options: Any) -> tuple[int, int]:
    return options.strideH, options.strideW
