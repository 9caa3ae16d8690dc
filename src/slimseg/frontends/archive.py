"""`.pt2` archives: read without unpickling anything, write with the description inside.

`torch.export.load` unpickles weights, constants and sample inputs that the archive declares to be pickled, and
evaluates symbolic shape expressions. A model file is untrusted input, so the archive is inspected first and
refused if it asks for any of that.
"""

from __future__ import annotations

import io
import json
import os
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from slimseg.errors import ModelError, OutputError
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph

DESCRIPTION_FILE = "slimseg.json"
MAX_UNPACKED_BYTES = 4 << 30
_SAFE_TARGET = re.compile(r"torch\.ops\.aten\.[A-Za-z0-9_.]+|_operator\.(getitem|add|sub|mul|floordiv)")


def read_program(path: Path) -> tuple[ExportedProgram, Description | None]:
    """The exported program, and the description where slimseg wrote the archive.

    Raises:
        ModelError: the file is missing, broken, or asks for something unsafe.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist: give the path of a .pt2 file")
    description = _inspect(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(path), description
    except Exception as error:
        raise ModelError(
            f"{path} is not a .pt2 archive that torch {torch.__version__} can read ({_first_line(error)})"
        ) from error


def _inspect(path: Path) -> Description | None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {info.filename: info for info in archive.infolist()}
            if sum(info.file_size for info in entries.values()) > MAX_UNPACKED_BYTES:
                raise ModelError(f"{path} unpacks to more than {MAX_UNPACKED_BYTES >> 30} GB: refused")
            _require_one_static_model(path, archive, entries)
            _require_plain_tensors(path, archive, entries)
            names = [name for name in entries if name.endswith(f"extra/{DESCRIPTION_FILE}")]
            return Description.from_json(archive.read(names[0]).decode()) if names else None
    except zipfile.BadZipFile as error:
        raise ModelError(
            f"{path} is damaged or not a .pt2 archive: export the model again with torch.export.save"
        ) from error
    except (OSError, EOFError, UnicodeDecodeError, json.JSONDecodeError, NotImplementedError) as error:
        raise ModelError(f"{path} is damaged ({_first_line(error)}): export the model again") from error


def _require_one_static_model(path: Path, archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo]) -> None:
    models = [name for name in entries if re.search(r"(^|/)models/[^/]+\.json$", name)]
    if len(models) != 1:
        raise ModelError(
            f"{path} holds {len(models)} models in torch's .pt2 layout, not 1: export it again with torch {torch.__version__}"
        )
    program = json.loads(archive.read(models[0]))
    if _has_key(program, "expr_str"):
        raise ModelError(f"{path} has dynamic shapes: export it again for one input size, without dynamic_shapes")
    for node in program["graph_module"]["graph"]["nodes"]:
        if not _SAFE_TARGET.fullmatch(str(node["target"])):
            raise ModelError(f"{path} calls {node['target']}, which is not an ATen operator: export plain tensor code")


def _has_key(value: Any, key: str) -> bool:
    if isinstance(value, dict):
        return key in value or any(_has_key(item, key) for item in value.values())
    return isinstance(value, list) and any(_has_key(item, key) for item in value)


def _require_plain_tensors(path: Path, archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo]) -> None:
    for name in entries:
        if re.search(r"_(weights|constants)_config\.json$", name):
            for entry in json.loads(archive.read(name)).get("config", {}).values():
                if entry.get("use_pickle") or entry.get("tensor_meta") is None:
                    raise ModelError(f"{path} stores pickled objects, which slimseg never opens: export plain tensors")
        if re.search(r"/data/sample_inputs/[^/]+\.pt$", name):
            _require_weights_only(path, archive.read(name))
        if "/custom_obj" in name or "/aotinductor/" in name:
            raise ModelError(f"{path} contains {name}, which slimseg never opens: export plain tensors")


def _require_weights_only(path: Path, data: bytes) -> None:
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:
        raise ModelError(
            f"{path} has sample inputs that are not plain tensors ({_first_line(error)}): export it again"
        ) from error


def write_graph(graph: Graph, path: Path) -> None:
    """Save a Graph as a `.pt2` that `read_program` opens, atomically.

    Raises:
        OutputError: the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.pt2")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            example = torch.zeros(graph.input_shape)
            program = torch.export.export(graph.module.eval(), (example,))
            torch.export.save(program, temporary, extra_files={DESCRIPTION_FILE: graph.description.to_json()})
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
