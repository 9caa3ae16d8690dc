"""Lambda layers: the stored code is interpreted as an expression over values of the graph, and never executed.

`lambda x: tf.nn.softmax(x)` puts the name `tf.nn.softmax` and the value x on a stack and calls. The called name is
looked up in functions.py, which emits nodes. Unknown names, and code that jumps, loops or imports, are refused.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from slimseg.errors import ModelError
from slimseg.frontends.keras import arithmetic, functions, layout, marshalled
from slimseg.frontends.keras.builder import Builder, Value
from slimseg.frontends.keras.bytecode import OPERATORS, instructions
from slimseg.frontends.keras.config import Layer

_MAX_STACK = 1000
_LONGEST_NAME = 200  # characters; no known function has a longer name
_ARITHMETIC = {
    "+": arithmetic.add,
    "-": arithmetic.subtract,
    "*": arithmetic.multiply,
    "/": arithmetic.divide,
    "**": arithmetic.power,
}


@dataclass(frozen=True)
class Name:
    """A global name, possibly with attributes: `tf.nn.softmax`."""

    dotted: str


@dataclass(frozen=True)
class Method:
    """A method of a value or constant: `x.get_shape`."""

    owner: Any
    name: str


def say(b: Builder, layer: Layer, argument: Any) -> Any:
    """Emit what a Lambda layer computes from its argument: a value, or a list of values.

    Raises:
        ModelError: the code is not understood; the message says why.
    """
    arguments = layer.config.get("arguments") or {}
    b.spend(_length(layer.config.get("function")))
    try:
        body = _body(layer.config["function"])
        if isinstance(body, str):
            return _call(b, Name(body), [argument], dict(arguments))
        code, defaults, closure = body
        b.spend(len(code.code))
        return _Reading(b, code, _bound(code, argument, defaults, closure, arguments)).result()
    except ModelError as error:
        reason = str(error).removesuffix(": give the .tflite instead")
        raise ModelError(f"what it computes cannot be read ({reason}): give the .tflite instead") from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ModelError("what it computes cannot be read, its code is damaged: give the .tflite instead") from error


def _length(stored: Any) -> int:
    """Number of characters in the stored code."""
    if isinstance(stored, dict):
        return _length(stored.get("config")) if stored.get("class_name") == "__lambda__" else 0
    texts = [stored] if isinstance(stored, str) else stored if isinstance(stored, list) else []
    return sum(len(text) for text in texts if isinstance(text, str))


def _body(stored: Any) -> str | tuple[marshalled.Code, list[Any], list[Any]]:
    """A function's name, or code with the default values of its arguments and the values of its closure."""
    if isinstance(stored, dict):
        config = stored.get("config")
        if stored.get("class_name") != "__lambda__":
            return str(config if isinstance(config, str) else stored.get("registered_name"))
        assert isinstance(config, dict)
        stored = [config["code"], config.get("defaults"), config.get("closure")]
    if isinstance(stored, str):
        return stored
    text, defaults, closure = stored
    try:
        code = marshalled.parse(base64.b64decode(text))
    except binascii.Error as error:
        raise ModelError("its stored code is damaged") from error
    return code, list(defaults or ()), list(closure or ())


def _bound(
    code: marshalled.Code, argument: Any, defaults: list[Any], closure: list[Any], arguments: dict[str, Any]
) -> dict[str, Any]:
    names = code.argument_names
    bound = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True)) if defaults else {}
    return {**dict(zip(code.free, closure, strict=False)), **bound, **arguments, names[0]: argument}


class _Reading:
    """A stack machine over values, constants and names."""

    def __init__(self, b: Builder, code: marshalled.Code, variables: dict[str, Any]) -> None:
        self.b = b
        self.code = code
        self.variables = variables
        self.stack: list[Any] = []
        self.keywords: tuple[str, ...] = ()

    def result(self) -> Any:
        for step in instructions(self.code):
            if step.name in ("return", "return_constant"):
                result = self.stack.pop() if step.name == "return" else None
                if not _is_tensor(result):
                    raise ModelError("it does not return a tensor")
                return result
            getattr(self, f"_{_METHODS.get(step.name, step.name)}")(step.argument, step.name)
            if len(self.stack) > _MAX_STACK:
                raise ModelError("its code is too long")
        raise ModelError("its code returns nothing")

    def _pop(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise ModelError("its code is damaged")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def _nothing(self, argument: int, name: str) -> None:
        pass

    def _drop(self, argument: int, name: str) -> None:
        self.stack.pop()

    def _constant(self, argument: int, name: str) -> None:
        self.stack.append(self.code.constants[argument])

    def _global(self, argument: int, name: str) -> None:
        self.stack.append(Name(self.code.names[argument]))

    def _variable(self, argument: int, name: str) -> None:
        self.stack.append(self.variables[self.code.variables[argument]])

    def _two_variables(self, argument: int, name: str) -> None:
        self._variable(argument >> 4, name)
        self._variable(argument & 15, name)

    def _cell(self, argument: int, name: str) -> None:
        self.stack.append(self.variables[self.code.cells[argument]])

    def _store(self, argument: int, name: str) -> None:
        self.variables[self.code.variables[argument]] = self.stack.pop()

    def _attribute(self, argument: int, name: str) -> None:
        owner, wanted = self.stack.pop(), self.code.names[argument]
        if isinstance(owner, Name):
            self.stack.append(Name(f"{owner.dotted}.{wanted}"[:_LONGEST_NAME]))
        elif isinstance(owner, Value) and wanted == "shape":
            self.stack.append(owner.keras_shape)
        else:
            self.stack.append(Method(owner, wanted))

    def _sequence(self, argument: int, name: str) -> None:
        items = self._pop(argument)
        self.stack.append(tuple(items) if name == "tuple" else items)

    def _extend(self, argument: int, name: str) -> None:
        items, target = self.stack.pop(), self.stack[-argument]
        if len(target) + len(items) > _MAX_STACK:
            raise ModelError("its code is too long")
        target.extend(items)

    def _slice(self, argument: int, name: str) -> None:
        self.stack.append(slice(*self._pop(argument)))

    def _subscript(self, argument: int, name: str) -> None:
        owner, key = self._pop(2)
        self.stack.append(layout.get_item(self.b, owner, key))

    def _subscript_slice(self, argument: int, name: str) -> None:
        owner, start, stop = self._pop(3)
        self.stack.append(layout.get_item(self.b, owner, slice(start, stop)))

    def _negative(self, argument: int, name: str) -> None:
        value = self.stack.pop()
        self.stack.append(functions.call(self.b, "neg", [value], {}) if isinstance(value, Value) else -value)

    def _operator(self, argument: int, name: str) -> None:
        # An in-place operator (numbered 13 higher) means the same in a single expression.
        self._binary(0, OPERATORS[argument % 13])

    def _binary(self, argument: int, name: str) -> None:
        x, y = self._pop(2)
        if isinstance(x, Value) or isinstance(y, Value):
            self.stack.append(_ARITHMETIC[name](self.b, x, y))
        else:
            self.stack.append(arithmetic.compute(name, x, y))

    def _names(self, argument: int, name: str) -> None:
        self.keywords = self.code.constants[argument]

    def _call(self, argument: int, name: str) -> None:
        keywords, self.keywords = self.keywords, ()
        if name == "call_named":
            keywords = self.stack.pop()
        values = self._pop(argument)
        positional = len(values) - len(keywords)
        named = dict(zip(keywords, values[positional:], strict=True))
        self.stack.append(_call(self.b, self.stack.pop(), values[:positional], named))


_METHODS = {
    "pop": "drop", "tuple": "sequence", "list": "sequence", "call_named": "call",
    **dict.fromkeys(("+", "-", "*", "/", "//", "**"), "binary"),
}  # fmt: skip


def _is_tensor(result: Any) -> bool:
    if isinstance(result, list | tuple):
        return bool(result) and all(isinstance(item, Value) for item in result)
    return isinstance(result, Value)


def _call(b: Builder, callee: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    if isinstance(callee, Method):
        return _method(callee)
    if not isinstance(callee, Name):
        raise ModelError("it calls something that is not a function")
    if callee.dotted in _HELPERS:
        return _HELPERS[callee.dotted](b, *args, **kwargs)
    if callee.dotted in ("int", "float", "list", "tuple"):
        return args[0] if callee.dotted != "int" else int(args[0])
    return functions.call(b, callee.dotted, args, kwargs)


def _method(method: Method) -> Any:
    if isinstance(method.owner, Value) and method.name == "get_shape":
        return method.owner.keras_shape
    if isinstance(method.owner, list | tuple) and method.name == "as_list":
        return list(method.owner)
    raise ModelError(f"it calls the method {method.name}, which has no counterpart in slimseg")


def _bilinear_resize(b: Builder, x: Value, rsize: Any) -> Value:
    """A helper of the user's whose body is not in the file, as published for portrait segmentation:
    `tf.image.resize_bilinear(x, [rsize, rsize], align_corners=True)`
    (https://github.com/anilsathyan7/Portrait-Segmentation)."""
    b.notes.append(
        "the body of the function bilinear_resize is not in the file; slimseg assumes align_corners=True: "
        "compare a mask with one of your own"
    )
    size = (rsize, rsize) if isinstance(rsize, int) else rsize
    return layout.resize(b, x, size, "bilinear", "align_corners")


_HELPERS = {"bilinear_resize": _bilinear_resize}
