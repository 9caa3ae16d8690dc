"""Emits the Graph's NCHW nodes for Keras's NHWC layers: names, shapes, shared parameters, size limits."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, fx, nn

from slimseg.errors import ModelError
from slimseg.frontends.aten.effort import Allowance
from slimseg.frontends.keras.stored import Array
from slimseg.frontends.work import Work
from slimseg.graph import ops, propagation
from slimseg.graph.names import Names, legal
from slimseg.graph.orders import TO_NHWC, nhwc_shape

MAX_VALUES = 1 << 28  # values of one tensor; a larger number is damage, not a network
MAX_NODES = 6_000  # nodes, and calls of layers and models
MAX_STEPS = 5_000_000  # arguments of calls and instructions of Lambdas that may be read
_COPIES = 64  # times all weights that may be stored: each further call of a layer copies its weights
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Value:
    """A tensor of the graph; `shape` is NCHW if it has four dimensions, with batch 1."""

    node: fx.Node
    shape: tuple[int, ...]

    @property
    def keras_shape(self) -> tuple[int, ...]:
        """Shape as Keras sees it: NHWC."""
        return nhwc_shape(self.shape)

    def dim(self, axis: int) -> int:
        """torch's dimension for Keras's `axis`.

        Raises:
            ModelError: the tensor has no such axis.
        """
        rank = len(self.shape)
        if not isinstance(axis, int) or not -rank <= axis < rank:
            raise ModelError(f"axis {axis} of a tensor of {rank} dimensions does not exist")
        return TO_NHWC[axis % rank] if rank == 4 else axis % rank


class Builder:
    """One graph under construction. Nodes are named after the layer that is being emitted (`layer_named`)."""

    def __init__(self, version: str, path: Path, stored: int = 0) -> None:
        """`stored`: how many numbers the file's weights have."""
        self.version = version
        self.path = path
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.notes: list[str] = []
        self._names = Names()
        self._modules: dict[tuple[str, str, int], tuple[str, str]] = {}  # -> (name of the module, its repr)
        self._said: Counter[str] = Counter()  # number of nodes of the current layer call, by suffix
        self._layer = ("", "")  # identity and name of the current layer
        self._calls = 0
        self._steps_left = MAX_STEPS
        self._copies_left = _COPIES * stored + (1 << 25)
        self._work = Work("it ", 4 * stored)
        self.allowance = Allowance("the network", 4 * stored)

    @property
    def is_keras2(self) -> bool:
        return self.version.startswith(("1", "2"))

    @contextmanager
    def layer_named(self, identity: str, name: str) -> Iterator[None]:
        """Nodes emitted inside belong to the layer of that identity; a second call of it shares its parameters."""
        self.call()
        before, self._layer = self._layer, (identity, name)
        self._said.clear()
        try:
            yield
        finally:
            self._layer = before

    def call(self) -> None:
        """Count one more call of a layer or nested model.

        Raises:
            ModelError: there are too many calls, as in models nested in models that are each called twice.
        """
        self._calls += 1
        if self._calls > MAX_NODES:
            raise ModelError(f"the network calls its layers more than {MAX_NODES} times: refused")

    def spend(self, steps: int) -> None:
        """Count arguments or instructions before they are read.

        Raises:
            ModelError: there are more of them in total than in any network.
        """
        self._steps_left -= steps
        if self._steps_left < 0:
            raise ModelError("the network's calls have more arguments or code than any network: refused")

    def input(self, shape: tuple[int, ...]) -> Value:
        self._names.new("image")
        self.image = Value(self.graph.placeholder("image"), shape)
        return self.image

    def emit(self, module: nn.Module, *inputs: Value, suffix: str = "") -> Value:
        """Emit one node; `suffix` distinguishes it from other nodes of the same layer.

        Raises:
            ModelError: the inputs do not fit the module.
        """
        try:
            shape = propagation.shape_of(module, [value.shape for value in inputs])
        except (ValueError, IndexError) as error:
            raise ModelError(f"layer {self._layer[1]} does not fit its input: {error}") from error
        if math.prod(shape) > MAX_VALUES or len(self._names) > MAX_NODES:
            raise ModelError(f"layer {self._layer[1]} would give a tensor of {shape}: refused")
        self._copies_left -= sum(value.numel() for value in (*module.parameters(), *module.buffers()))
        if self._copies_left < 0:
            raise ModelError(f"layer {self._layer[1]} is called more often than slimseg allows: refused")
        name = self._free_name(suffix)
        target = self._target(module, name, suffix)
        node = self.graph.create_node("call_module", target, tuple(value.node for value in inputs), name=name)
        return Value(node, shape)

    def affine(self, x: Value, scale: object = None, shift: object = None, suffix: str = "") -> Value:
        """`x · scale + shift` with constants that broadcast against NHWC."""
        return self.emit(ops.Affine(constant(scale, x), constant(shift, x)), x, suffix=suffix)

    def finish(self, output: Value) -> fx.GraphModule:
        self.graph.output(output.node)
        return fx.GraphModule(self.root, self.graph)

    def _target(self, module: nn.Module, name: str, suffix: str) -> str:
        """The name of an earlier call's module if it has the same settings and parameters, else of the new one."""
        self._said[suffix] += 1
        key = (self._layer[0], suffix, self._said[suffix])
        has_state = bool(module.state_dict())
        if has_state and key in self._modules:
            target, said = self._modules[key]
            if said == repr(module):
                return target
            for parameter, value in self.root.get_submodule(target).named_parameters(recurse=False):
                setattr(module, parameter, value)  # the same weights, padded for another input size
        elif has_state:
            self._modules[key] = (name, repr(module))
        self._work.store(module)
        self.root.add_module(name, module)
        return name

    def _free_name(self, suffix: str) -> str:
        """The layer's name as a plain Python identifier: torch.fx puts it into code, and the file is untrusted."""
        said = self._layer[1][:_LONGEST_NAME]
        wanted = re.sub(r"[^A-Za-z0-9_]", "_", f"{said}_{suffix}" if suffix else said)
        return self._names.new(legal(wanted[:_LONGEST_NAME]))


def constant(raw: object, like: Value) -> Tensor | None:
    """A number or nested list in NHWC as a tensor that broadcasts against `like` (NCHW); None stays None."""
    if raw is None:
        return None
    array: Array = np.asarray(raw, np.float32)
    shape = list(array.shape)
    while len(shape) == len(like.shape) and shape and shape[0] == 1:
        shape = shape[1:]
    array = array.reshape(shape)
    if len(like.shape) == 4:
        if array.ndim == 1:
            array = array.reshape(1, 1, -1)
        if array.ndim == 2:
            array = array.reshape(1, *array.shape)
        if array.ndim == 3:
            array = array.transpose(2, 0, 1)
    return torch.from_numpy(np.array(array))


def parameter(array: Array, order: Sequence[int] | None = None) -> nn.Parameter:
    """Stored weights as a trainable parameter, with their dimensions in another order."""
    if order is not None and array.ndim != len(order):
        raise ModelError(f"weights of shape {array.shape} should have {len(order)} dimensions")
    ordered = array if order is None else array.transpose(order)
    return nn.Parameter(torch.from_numpy(np.array(ordered, np.float32, order="C")))
