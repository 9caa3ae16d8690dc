"""Reads torch.export's JSON without torch's own reader: only names, numbers and tensors are taken from the file.

torch's reader imports any module that a tree specification or a piece of metadata names, evaluates expressions and
unpickles. Here a program is rebuilt from the few fields that say what is computed. All other fields are ignored, so
that their contents do not matter, in this or a later version of the format. Shapes are not trusted but computed: every
call runs once on tensors without data.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload

from slimseg.errors import ModelError, one_line
from slimseg.frontends.aten import permitted
from slimseg.frontends.aten.call import Parameter
from slimseg.frontends.aten.effort import Allowance, Effort, bytes_of, without_data
from slimseg.frontends.program import Program
from slimseg.frontends.tree import labels_of
from slimseg.graph.names import node_name
from slimseg.memory_bounds import LARGEST_VALUE_BYTES

MAJOR_VERSION = 8
_LONGEST_TEXT = 200
# torch's types by their numbers in the format. Values in 16 or 64 bits are computed in 32 bits.
DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float32, 7: torch.float32,
    8: torch.float32, 12: torch.bool, 13: torch.float32,
}  # fmt: skip
_MEMORY_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 4: torch.preserve_format}
_STRIDED = 7
SIGNATURE = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}
# Calls that return a list of tensors: the number of tensors, from the dimension's length and the call's argument.
_PARTS: dict[str, Callable[[int, int], int]] = {
    "split": lambda length, size: -(-length // max(size, 1)),
    "unsafe_split": lambda length, size: -(-length // max(size, 1)),
    "chunk": min,
    "unsafe_chunk": min,
    "tensor_split": lambda _, sections: sections,
    "unbind": lambda length, _: length,
}


def read(
    source: str, program: Any, tensors: Mapping[str, Tensor], allowance: Allowance, notes: tuple[str, ...] = ()
) -> Program:
    """Build the program that torch.export wrote as `program`; `tensors` by their names in it.

    Raises:
        ModelError: it uses something that no network for images needs, or its parts do not fit together.
    """
    version = program["schema_version"]["major"]
    if version != MAJOR_VERSION:
        raise ModelError(f"{source} has version {version} of torch's format, not {MAJOR_VERSION}: export it again")
    return _Reader(source, program["graph_module"], tensors, allowance).program(notes)


class _Reader:
    def __init__(self, source: str, module: Any, tensors: Mapping[str, Tensor], allowance: Allowance) -> None:
        self.source = source
        self.module = module
        self.tensors = tensors
        self.allowance = allowance
        self.graph = fx.Graph()
        self.values: dict[str, fx.Node] = {}  # by their names in the file
        self.parameters: dict[fx.Node, Parameter] = {}
        self.fixed: set[fx.Node] = set()  # nodes that do not depend on the image

    def program(self, notes: tuple[str, ...]) -> Program:
        image = self._inputs()
        for call in self.module["graph"]["nodes"]:
            self._call(call)
        outputs = self._outputs()
        self.graph.output(tuple(node for _, node in outputs))
        return Program(self.graph, image, self.parameters, outputs, self.allowance, notes)

    def _refusal(self, reason: str) -> ModelError:
        return ModelError(f"{self.source} {reason}")

    # --- inputs

    def _inputs(self) -> fx.Node:
        images = []
        for spec in self.module["signature"]["input_specs"]:
            ((kind, content),) = spec.items()
            if kind in SIGNATURE:
                self._parameter(kind, content)
            elif kind == "user_input" and "as_tensor" in content["arg"]:
                images.append(str(content["arg"]["as_tensor"]["name"]))
            elif kind not in ("user_input", "constant_input"):  # other inputs: numbers that the program contains
                raise self._refusal(f"takes an input that is not a tensor ({short(kind)}): export plain tensor code")
        if len(images) != 1:
            names = ", ".join(map(short, images)) or "none"
            raise self._refusal(f"takes {len(images)} inputs ({names}), not one image: export a network with one input")
        return self._image(images[0])

    def _parameter(self, kind: str, content: Any) -> None:
        target = str(content[SIGNATURE[kind]])
        if target not in self.tensors:
            return  # no call reads it, or the call that does is refused
        tensor = self.tensors[target]
        node = self._placeholder(str(content["arg"]["name"]), without_data(tensor))
        self.parameters[node] = Parameter(target, nn.Parameter(tensor) if kind == "parameter" else tensor)
        self.fixed.add(node)

    def _image(self, name: str) -> fx.Node:
        meta = self.module["graph"]["tensor_values"][name]
        shape = tuple(self._length(size) for size in meta["sizes"])
        said = f"takes {short(name)} of shape {shape}"
        if len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3):
            raise self._refusal(
                f"{said}, channels last: export it so that it takes (1, {shape[3]}, {shape[1]}, {shape[2]})"
            )
        if len(shape) != 4 or shape[0] != 1:
            raise self._refusal(f"{said}, not one image: export it for (1, channels, height, width)")
        if not all(1 <= side <= 8192 for side in shape):
            raise self._refusal(f"{said}: export it with sides from 1 to 8192 pixels")
        dtype = DTYPES.get(meta["dtype"])
        if dtype is not torch.float32:
            raise self._refusal(f"{said} and of {dtype or 'an unknown type'}: export it so that it takes float32")
        return self._placeholder(name, torch.empty(shape, dtype=dtype, device="meta"))

    def _placeholder(self, name: str, value: Tensor) -> fx.Node:
        node = self.graph.placeholder(node_name(name))
        self._define(name, node, value)
        return node

    def _length(self, value: Any) -> int:
        if isinstance(value, dict) and set(value) == {"as_int"} and type(value["as_int"]) is int:
            return int(value["as_int"])
        raise self._refusal("has dynamic shapes: export it again for one input size, without dynamic_shapes")

    # --- calls

    def _call(self, call: Any) -> None:
        target = str(call["target"])
        name = permitted.name_of(target)
        if name in permitted.ASSERTIONS:
            return
        found = permitted.operator(target)
        if name is None:
            raise self._refusal(f"calls {short(target)}, which is not an ATen operator: export plain tensor code")
        if found is None:
            raise self._refusal(f"calls aten.{name}, which slimseg does not run from a file: give file.py:function")
        given = {str(each["name"]): self._argument(each["arg"]) for each in call["inputs"]}
        args, kwargs = _arranged(found, given)
        label = short(str(call.get("name") or name))
        self._require_steady(found, given, label)
        node = self.graph.call_function(found, args, kwargs)
        value = self._without_data(node, found, label, call["outputs"])
        self._results(node, value, call["outputs"])

    def _require_steady(self, found: OpOverload, given: Mapping[str, Any], label: str) -> None:
        """Refuse calls that only training makes, such as those that draw random numbers."""
        name = found._schema.name.removeprefix("aten::").removesuffix("_")
        drawing = permitted.DRAWING.get(name)
        if drawing is not None and given.get(drawing):
            raise self._refusal(f"draws random numbers at {label}, as in training: call .eval() before exporting it")
        if name in ("batch_norm", "native_batch_norm") and given.get("training") and given.get("running_mean"):
            raise self._refusal(
                f"normalises by batch statistics at {label}, as in training: call .eval() before exporting it"
            )
        if permitted.writes(found) and given.get(found._schema.arguments[0].name) in self.parameters:
            raise self._refusal(f"changes its own weights at {label}: call .eval() before exporting it")

    def _without_data(self, node: fx.Node, found: OpOverload, label: str, outputs: Any) -> Any:
        """The call's value as tensors without data; its cost is stored in the node's `meta`."""
        sources = node.all_input_nodes
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: source.meta["val"])
        if any(argument.name == "device" for argument in found._schema.arguments):
            kwargs = {**kwargs, "device": torch.device("meta")}
        self._require_few_parts(found, args, kwargs, label, outputs)
        try:
            with torch.no_grad(), Effort() as effort:
                value = found(*args, **kwargs)
        except Exception as error:
            said = f"has a layer that does not fit its input ({label}: {one_line(error)}): export it again"
            raise self._refusal(said) from error
        if bytes_of(value) > LARGEST_VALUE_BYTES:
            raise self._refusal(
                f"needs {bytes_of(value) / 1e9:.1f} GB of memory for one image at layer {label}: use a smaller input"
            )
        node.meta["operations"] = effort.operations
        if all(source in self.fixed for source in sources):
            self.fixed.add(node)
        return value

    def _require_few_parts(
        self, found: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], label: str, outputs: Any
    ) -> None:
        count = _PARTS.get(found._schema.name.removeprefix("aten::"))
        if count is None or not isinstance(args[0], Tensor):
            return
        named = dict(zip((argument.name for argument in found._schema.arguments), args, strict=False)) | dict(kwargs)
        sizes = (named.get(key) for key in ("split_size", "chunks", "sections"))
        size = next((each for each in sizes if type(each) is int), 0)
        if isinstance(places := named.get("indices"), list):
            size = len(places) + 1
        dim = named.get("dim", 0)
        length = args[0].shape[dim] if type(dim) is int and -args[0].ndim <= dim < args[0].ndim else 0
        if len(outputs) != 1 or count(length, size) != len(outputs[0].get("as_tensors", ())):
            raise self._refusal(
                f"has a layer that outputs another number of parts than is used ({label}): export it again"
            )

    def _results(self, node: fx.Node, value: Any, outputs: Any) -> None:
        if isinstance(value, Tensor):
            (output,) = outputs
            self._define(str(output["as_tensor"]["name"]), node, value)
            return
        node.meta["val"] = value
        listed = outputs[0]["as_tensors"] if len(outputs) == 1 and "as_tensors" in outputs[0] else outputs
        for index, output in enumerate(listed):
            output = output.get("as_tensor", output)
            if "name" in output:  # outputs without a name are not used
                part = self.graph.call_function(operator.getitem, (node, index))
                if node in self.fixed:
                    self.fixed.add(part)
                self._define(str(output["name"]), part, value[index])

    def _define(self, name: str, node: fx.Node, value: Tensor) -> None:
        if name in self.values:
            raise self._refusal(f"has two values with the name {short(name)}: export it again")
        self.values[name] = node
        node.name = self.graph._graph_namespace.create_name(node_name(name), None)
        node.meta["val"] = value

    # --- arguments

    def _argument(self, argument: Any) -> Any:
        ((kind, content),) = argument.items()
        if kind in ("as_none", "as_bool", "as_int", "as_float"):
            return None if kind == "as_none" else _number(content)
        if kind in ("as_bools", "as_ints", "as_floats"):
            return [_number(each) for each in content]
        if kind == "as_tensor":
            return self._value(content)
        if kind == "as_tensors":
            return [self._value(each) for each in content]
        if kind == "as_optional_tensors":
            return [self._argument(each) for each in content]
        if kind == "as_optional_tensor":
            return self._argument(content)
        if kind == "as_string":
            return _word(content)
        if kind in ("as_sym_int", "as_sym_ints", "as_sym_float", "as_sym_bool"):
            return [self._length(each) for each in content] if kind == "as_sym_ints" else self._length(content)
        if kind == "as_scalar_type":
            return DTYPES[content]
        if kind == "as_memory_format":
            return _MEMORY_FORMATS[content]
        if kind == "as_layout" and content == _STRIDED:
            return torch.strided
        if kind == "as_device":
            return torch.device("cpu")
        said = f"passes an operator {short(kind)}, which is neither a tensor nor a number"
        raise self._refusal(f"{said}: export plain tensor code")

    def _value(self, reference: Any) -> fx.Node:
        name = str(reference["name"])
        if name not in self.values:
            raise self._refusal(f"uses the value {short(name)} before it is computed: export it again")
        return self.values[name]

    # --- outputs

    def _outputs(self) -> list[tuple[str, fx.Node]]:
        """Label and node of each tensor that the network returns."""
        specs = [content for spec in self.module["signature"]["output_specs"] for content in spec.items()]
        returned = [content["arg"] for kind, content in specs if kind == "user_output"]
        labels = labels_of(self.module["module_call_graph"], len(returned))
        return [
            (label, self._value(argument["as_tensor"]))
            for label, argument in zip(labels, returned, strict=True)
            if "as_tensor" in argument
        ]


def _arranged(found: OpOverload, given: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments in the order of the operator's schema; after the first that is left out, by name."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    by_name = False
    for argument in found._schema.arguments:
        by_name = by_name or argument.kwarg_only or argument.name not in given
        if argument.name in given:
            if by_name:
                kwargs[argument.name] = given[argument.name]
            else:
                args.append(given[argument.name])
    return tuple(args), kwargs


def _number(value: Any) -> bool | int | float:
    if isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 63):
        return value
    if value in ("Infinity", "-Infinity", "NaN"):
        return float(value.replace("Infinity", "inf"))
    raise ValueError(f"{short(str(value))} is not a number")


def _word(value: Any) -> str:
    """A plain word: a mode ("reflect") or an equation of einsum ("bhqk,bhkc->bhqc")."""
    if isinstance(value, str) and len(value) <= _LONGEST_TEXT and all(c.isalpha() or c in "_-,.> " for c in value):
        return value
    raise ValueError(f"{short(str(value))} is not a plain word")


def short(text: str) -> str:
    """Text from the file, shortened and made safe for a message."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_LONGEST_TEXT])
