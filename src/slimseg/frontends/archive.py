"""`.pt2` archives: read without trusting them.

`torch.export.load` unpickles, imports modules that the file names and evaluates expressions, so it is never used here:
tensors are read from their bytes, and the program from its JSON (`frontends/serialized.py`).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimseg.errors import ModelError, SlimsegError, one_line
from slimseg.frontends import serialized
from slimseg.frontends.aten.effort import Allowance
from slimseg.frontends.bounded import Entries, json_of
from slimseg.frontends.program import Program
from slimseg.graph.description import Description
from slimseg.graph.saving import DESCRIPTION_FILE

_MODEL = "models/model.json"
_CONFIGS = {"data/weights": "model_weights_config.json", "data/constants": "model_constants_config.json"}
# torch's types by their numbers in the format.
_STORED = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip
_STRIDED = 7
_CONVERTED = (torch.float16, torch.bfloat16, torch.float64)


def read_program(path: Path) -> tuple[Program, Description | None]:
    """The exported program, and its description if slimseg wrote the archive.

    Raises:
        ModelError: the file is missing, broken, or asks for something unsafe.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist: give the path of a .pt2 file")
    try:
        return _read(path)
    except SlimsegError:
        raise
    except zipfile.BadZipFile as error:
        raise ModelError(
            f"{path} is damaged or not a .pt2 archive: export the model again with torch.export.save"
        ) from error
    except KeyError as error:
        raise ModelError(f"{path} is damaged, as it lacks {one_line(error)}: export the model again") from error
    except Exception as error:  # zlib, json and torch raise many kinds of errors for damaged content
        raise ModelError(f"{path} is damaged ({one_line(error)}): export the model again") from error


def _read(path: Path) -> tuple[Program, Description | None]:
    entries = Entries(path)
    with entries.archive:
        if _MODEL not in entries:
            raise ModelError(f"{path} holds no model in torch's .pt2 layout: export it again with torch.export.save")
        if entries.read("byteorder").strip() != b"little":
            raise ModelError(f"{path} was written on a machine with another byte order: export it on this machine")
        program = json_of(entries.read(_MODEL), path, "program")
        stored = [(folder, *each) for folder in _CONFIGS for each in _stored(entries, folder)]
        used = _used(program)
        allowance = Allowance(str(path), entries.size)
        tensors, converted = {}, set()
        for folder, name, value in stored:
            if name in used:
                tensor = _tensor(entries, folder, name, value, allowance)
                if tensor.dtype in _CONVERTED:
                    converted.add(str(tensor.dtype).removeprefix("torch."))
                    tensor = tensor.float()
                tensors[name] = tensor
        description = _description(entries)
    read = serialized.read(str(path), program, tensors, allowance, _notes(converted))
    return replace(read, weights="float16" if converted == {"float16"} else "float32"), description


def _notes(converted: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"its weights are {dtype}, and it is opened in float32" for dtype in sorted(converted))


def _used(program: Any) -> set[str]:
    """Names of the stored values that at least one call or output reads."""
    module = program["graph_module"]
    read = {name for call in module["graph"]["nodes"] for each in call["inputs"] for name in _names(each["arg"])}
    read.update(name for argument in module["graph"]["outputs"] for name in _names(argument))
    found = set()
    for spec in module["signature"]["input_specs"]:
        for kind, content in spec.items():
            if kind in serialized.SIGNATURE and content["arg"]["name"] in read:
                found.add(content[serialized.SIGNATURE[kind]])
    return found


def _names(argument: Any) -> Iterable[Any]:
    """The names of the values in one argument, which is a value or a list of values."""
    for content in argument.values():
        for each in content if isinstance(content, list) else [content]:
            if isinstance(each, dict):
                yield each["name"] if "name" in each else each.get("as_tensor", {}).get("name")


def _stored(entries: Entries, folder: str) -> Iterable[tuple[str, Any]]:
    """Name and description of every tensor in a folder, whether the program reads it or not.

    Raises:
        ModelError: an entry is not a plain tensor.
    """
    config = json_of(entries.read(f"{folder}/{_CONFIGS[folder]}"), entries.path, "table of weights")
    for name, value in config["config"].items():
        meta = value["tensor_meta"]
        if value["use_pickle"] is not False or not meta or meta["dtype"] not in _STORED or meta["layout"] != _STRIDED:
            said = f"{entries.path} stores {serialized.short(name)} as an object, which slimseg never unpickles"
            raise ModelError(f"{said}: export plain tensors")
        yield name, value


def _tensor(entries: Entries, folder: str, name: str, value: Any, allowance: Allowance) -> Tensor:
    """Build one tensor from its bytes.

    Raises:
        ModelError: it would take more memory than its stored bytes allow.
    """
    meta = value["tensor_meta"]
    data = bytearray(entries.read(f"{folder}/{value['path_name']}"))
    dtype = _STORED[meta["dtype"]]
    sizes, strides = ([int(each["as_int"]) for each in meta[key]] for key in ("sizes", "strides"))
    flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    view = flat.as_strided(sizes, strides, int(meta["storage_offset"]["as_int"]))
    allowance.spend(serialized.short(name), max(0, view.numel() * view.element_size() - len(data)))
    return view if view.is_contiguous() else view.contiguous()


def _description(entries: Entries) -> Description | None:
    name = f"extra/{DESCRIPTION_FILE}"
    if name not in entries:
        return None
    try:
        return Description.from_json(entries.read(name).decode())
    except ModelError as error:
        raise ModelError(f"{entries.path}: {error}") from error
