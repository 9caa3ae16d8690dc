"""PyTorch frontend: an nn.Module, a `.pt2` file, or `file.py:function` become a Graph.

torch.export gives every source the same form (ATen calls on named parameters); `frontends/aten/` turns those calls into
modules of the vocabulary. A call that its table does not contain stays as an opaque node.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from slimseg.errors import GraphError, ModelError, SlimsegError, one_line
from slimseg.frontends import archive, decisions, program, scripted
from slimseg.frontends.aten.builder import Builder, WritesInPlace
from slimseg.frontends.factory import from_factory
from slimseg.frontends.outputs import Output, choose
from slimseg.frontends.program import Program
from slimseg.frontends.tree import tensors_of
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph, Weights
from slimseg.graph.orders import TO_NCHW, TO_NHWC
from slimseg.graph.output import output_kind

_OTHER_PRECISIONS = (torch.float16, torch.bfloat16, torch.float64)
_DATA = Tensor.data.__get__  # type: ignore[attr-defined]


def open_module(
    model: nn.Module, input_size: tuple[int, int], name: str, output: str | int | None = None
) -> tuple[Graph, nn.Module]:
    """The Graph of an nn.Module, and a module for (1, 3, height, width) that computes the same: mostly `model` itself.

    A module that takes (1, height, width, 3) instead is opened, too.

    Raises:
        ModelError: as `from_module`.
    """
    try:
        return from_module(model, input_size, name, output), model
    except ModelError as error:
        wrapped = ChannelsLast(model)
        try:
            graph = from_module(wrapped, input_size, name, output)
        except ModelError:
            raise error from None  # it says more
    graph.notes = (*graph.notes, "it takes images as (1, height, width, 3)")
    return graph, wrapped


class ChannelsLast(nn.Module):
    """A module of images and maps (N, height, width, channels), for (N, channels, height, width)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.channels_last = module  # the name is `call.CHANNELS_LAST`, which names of layers leave out

    def forward(self, x: Tensor) -> Any:
        value = self.channels_last(x.permute(TO_NHWC))
        return tree_map_only(Tensor, lambda each: each.permute(TO_NCHW) if each.ndim == 4 else each, value)


def from_module(model: nn.Module, input_size: tuple[int, int], name: str, output: str | int | None = None) -> Graph:
    """Trace an nn.Module at (1, 3, height, width).

    Where it has several outputs (a mapping, a tuple), `output` selects one by key or index; default: the likeliest.

    Raises:
        ModelError: torch.export cannot trace it, or there is no such output.
    """
    example = torch.zeros(1, 3, *input_size)
    was_training = getattr(model, "training", False)  # a frozen TorchScript module has no such state
    _require_real_numbers(model, name)
    model, weights, notes = _in_float32(model)
    labels: list[str] = []
    try:
        model = scripted.plain(model, example) if scripted.is_scripted(model) else model
        exported = _exported(model.eval(), example, labels)
    except Exception as error:
        raise ModelError(
            f"{name} cannot be traced at {input_size[0]}x{input_size[1]} ({one_line(error)}): "
            "it must be an nn.Module that takes one (1, 3, height, width) tensor, free of data-dependent control flow"
        ) from error
    finally:
        if not scripted.is_scripted(model):
            model.train(was_training)
    if any(isinstance(node.target, HigherOrderOperator) for node in exported.graph.nodes):
        exported = _functional(exported)  # `with torch.autocast(...)` and the like become plain calls
    try:
        try:
            return _opened(exported, labels, notes, weights, name, output)
        except WritesInPlace:
            return _opened(_functional(exported), labels, notes, weights, name, output)
    except SlimsegError:
        raise
    except Exception as error:
        raise ModelError(
            f"{name} makes calls that slimseg cannot rebuild ({one_line(error)}): please report it"
        ) from error


def _exported(model: nn.Module, example: Tensor, labels: list[str]) -> torch.export.ExportedProgram:
    """The calls that a module makes; where it decides by its own buffers, those of the branch that they choose."""
    try:
        return _traced(_Labelled(model, labels.append), example)
    except Exception:
        labels.clear()
        if not (found := decisions.noted(model, example)):
            raise
        return _traced(_Labelled(model, labels.append, found), example)


def _traced(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    kept = {each: dict(vars(each)) for each in model.modules()}
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # where a trace fails, torch logs and prints the whole graph
    try:
        with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            return torch.export.export(model, (example,))
    finally:
        logging.disable(disabled)
        for module, before in kept.items():
            _without_traces(module, before)


def _without_traces(module: nn.Module, before: Mapping[str, Any]) -> None:
    """Remove tensors without values that a module has kept from its trace, as positions that it computes only once."""
    for name, value in [*vars(module).items()]:
        if isinstance(value, FakeTensor):
            if name in before:
                vars(module)[name] = before[name]
            else:
                del vars(module)[name]


def _require_real_numbers(model: nn.Module, name: str) -> None:
    """Raises ModelError if torch.ao has converted a module to 8 bits."""
    for each in model.modules():
        place = type(each).__module__
        if place.startswith(("torch.ao.nn.", "torch.nn.quantized", "torch.nn.intrinsic")) and "quantized" in place:
            raise ModelError(
                f"{name} was converted to 8 bits ({type(each).__name__} of torch.ao), and its packed weights cannot be "
                "opened: give the network before `convert`, and let slimseg quantise it"
            )


def _functional(exported: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program as plain calls that overwrite nothing."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        plain: torch.export.ExportedProgram = exported.run_decompositions({})
    return plain


def _opened(
    exported: torch.export.ExportedProgram,
    labels: list[str],
    notes: tuple[str, ...],
    weights: Weights,
    name: str,
    output: str | int | None,
) -> Graph:
    traced = program.exported(exported, labels, notes, name)
    return canonical(replace(traced, weights=weights), None, name, output)


def _in_float32(model: nn.Module) -> tuple[nn.Module, Weights, tuple[str, ...]]:
    """The model, or a float32 copy if its weights have another precision; that precision; and notes about it."""
    found = {value.dtype for value in (*model.parameters(), *model.buffers()) if value.dtype in _OTHER_PRECISIONS}
    if not found:
        return model, "float32", ()
    notes = tuple(f"its weights are {str(dtype).removeprefix('torch.')}: it is opened in float32" for dtype in found)
    return copy.deepcopy(model).float(), "float16" if found == {torch.float16} else "float32", notes


class _Labelled(nn.Module):
    """A model whose outputs are all of its tensors, one after another; their labels are noted during tracing."""

    def __init__(
        self, model: nn.Module, note: Callable[[str], None], noted: tuple[decisions.Decision, ...] = ()
    ) -> None:
        super().__init__()
        self.model = model
        self.noted = noted
        self.note = note  # a function, since torch.export resets a module's lists after tracing

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        with _TracedData(), decisions.Repeating(self.noted):
            value = self.model(x)
        found = list(tensors_of(value))
        if not found:
            raise TypeError(f"the model returns {type(value).__name__}, not a tensor")
        for label, _ in found:
            self.note(label)
        return tuple(_as_map(tensor) for _, tensor in found)


def _as_map(x: Tensor) -> Tensor:
    """Masks (1, 1, masks, height, width), as SAM returns them for one prompt, without the dimension of prompts."""
    while x.ndim > 4 and 1 in x.shape[1:-2]:
        x = x.squeeze(x.shape.index(1, 1))
    return x


class _TracedData(TorchFunctionMode):
    """Reads `tensor.data` as `tensor.detach()`, since torch.export takes it for a constant."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return args[0].detach() if func == _DATA else func(*args, **(kwargs or {}))


def from_file(path: Path, input_size: tuple[int, int] | None = None, output: str | int | None = None) -> Graph:
    """Open a `.pt2` file, at its own input size.

    Raises:
        ModelError: the file cannot be used (see `archive.read_program`), or there is no such output.
    """
    traced, embedded = archive.read_program(path)
    try:
        return canonical(traced, embedded, path.stem, output)
    except (ModelError, GraphError) as error:
        said = str(error)
        raise ModelError(said if path.name in said else f"{path}: {said}") from error
    except Exception as error:  # a damaged archive can hold any nonsense that still parses
        raise ModelError(
            f"{path} holds a network that slimseg cannot rebuild ({one_line(error)}): export it again"
        ) from error


def canonical(traced: Program, description: Description | None, name: str, output: str | int | None = None) -> Graph:
    """Turn a traced network into a Graph.

    Raises:
        ModelError: it does not take one float tensor (1, channels, height, width), or returns no map of classes.
    """
    shape = tuple(traced.image.meta["val"].shape)
    if len(shape) != 4 or shape[0] != 1:
        raise ModelError(f"{name} takes a tensor of shape {shape}, not one (1, channels, height, width) image")
    builder = Builder(traced)
    builder.build()
    outputs = [(label, node) for label, node in traced.outputs if node in builder.values]
    try:
        index, note = choose([Output(label, tuple(node.meta["val"].shape)) for label, node in outputs], output)
    except ModelError as error:
        raise ModelError(f"{name} {error}") from error
    graph = Graph(builder.module(builder.values[outputs[index][1]]), shape, description, name)
    graph.weights = traced.weights
    graph.is_quantised = builder.is_quantised
    graph.notes = (*traced.notes, *builder.notes, *((note,) if note else ()))
    if description is None:
        graph.description = Description(output_kind=output_kind(graph))
    rank = len(graph.shape(graph.output))
    if rank not in (3, 4) and description is None:  # slimseg's own files describe their output
        raise ModelError(
            f"{name} returns a tensor of {rank} dimensions, not a (1, classes, height, width) map of classes"
        )
    return graph


__all__ = ["canonical", "from_factory", "from_file", "from_module", "open_module"]
