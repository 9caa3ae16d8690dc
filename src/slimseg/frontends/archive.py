"""`.pt2` archives: read without unpickling anything, write with the description inside.

`torch.export.load` unpickles weights, constants and sample inputs that the archive declares to be pickled (or stores
the way older versions of torch did), and evaluates symbolic shape expressions. A model file is untrusted input, so
torch is never given the file itself: it reads a clean archive in memory, rebuilt from the entries that were inspected.
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

from slimseg.errors import ModelError, OutputError, SlimsegError, one_line
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph

DESCRIPTION_FILE = "slimseg.json"
MAX_UNPACKED_BYTES = 4 << 30
_MODEL = "models/model.json"
_CONFIGS = {
    "data/weights/model_weights_config.json": re.compile(r"weight_\d+"),
    "data/constants/model_constants_config.json": re.compile(r"tensor_\d+"),
}
_SAMPLE_INPUTS = "data/sample_inputs/model.pt"
_PLAIN = ("archive_format", "archive_version", "byteorder", ".data/version")
_SAFE_TARGET = re.compile(r"torch\.ops\.aten\.[A-Za-z0-9_.]+|_operator\.(getitem|add|sub|mul|floordiv)")


def read_program(path: Path) -> tuple[ExportedProgram, Description | None]:
    """The exported program, and the description where slimseg wrote the archive.

    Raises:
        ModelError: the file is missing, broken, or asks for something unsafe.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist: give the path of a .pt2 file")
    try:
        entries = _entries(path)
        description = _description(entries)
        clean = _inspected(path, entries)
    except SlimsegError:
        raise
    except zipfile.BadZipFile as error:
        raise ModelError(
            f"{path} is damaged or not a .pt2 archive: export the model again with torch.export.save"
        ) from error
    except Exception as error:  # whatever zlib, json and nonsense in the right places can raise
        raise ModelError(f"{path} is damaged ({one_line(error)}): export the model again") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(_zipped(clean)), description
    except Exception as error:
        raise ModelError(
            f"{path} is not a .pt2 archive that torch {torch.__version__} can read ({one_line(error)})"
        ) from error


def _entries(path: Path) -> dict[str, bytes]:
    """Contents by name below the archive's one top folder; every checksum is verified on the way."""
    with zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        if sum(info.file_size for info in infos) > MAX_UNPACKED_BYTES:
            raise ModelError(f"{path} unpacks to more than {MAX_UNPACKED_BYTES >> 30} GB: refused")
        entries = {info.filename.partition("/")[2]: archive.read(info) for info in infos}
    if len(entries) != len(infos):
        raise ModelError(f"{path} holds two entries of one name: export the model again with torch.export.save")
    return entries


def _description(entries: dict[str, bytes]) -> Description | None:
    text = entries.get(f"extra/{DESCRIPTION_FILE}")
    return None if text is None else Description.from_json(text.decode())


def _inspected(path: Path, entries: dict[str, bytes]) -> dict[str, bytes]:
    """The entries that torch needs, each of them looked at.

    Raises:
        ModelError: one of them is unsafe or missing.
    """
    if _MODEL not in entries:
        raise ModelError(f"{path} holds no model in torch's .pt2 layout: export it again with torch.export.save")
    _require_static_aten(path, json.loads(entries[_MODEL]))
    clean = {name: entries[name] for name in (*_PLAIN, _MODEL) if name in entries}
    clean[_SAMPLE_INPUTS] = b""  # pickled, and nobody needs them
    for config, payload in _CONFIGS.items():
        clean[config] = entries[config]
        for value in json.loads(entries[config])["config"].values():
            name = str(value["path_name"])
            if value["use_pickle"] is not False or value["tensor_meta"] is None or not payload.fullmatch(name):
                raise ModelError(f"{path} stores pickled objects, which slimseg never opens: export plain tensors")
            clean[f"{config.rpartition('/')[0]}/{name}"] = entries[f"{config.rpartition('/')[0]}/{name}"]
    return clean


def _require_static_aten(path: Path, program: Any) -> None:
    if _has_key(program, "expr_str"):
        raise ModelError(f"{path} has dynamic shapes: export it again for one input size, without dynamic_shapes")
    for node in program["graph_module"]["graph"]["nodes"]:
        if not _SAFE_TARGET.fullmatch(str(node["target"])):
            raise ModelError(f"{path} calls {node['target']}, which is not an ATen operator: export plain tensor code")


def _has_key(value: Any, key: str) -> bool:
    if isinstance(value, dict):
        return key in value or any(_has_key(item, key) for item in value.values())
    return isinstance(value, list) and any(_has_key(item, key) for item in value)


def _zipped(entries: dict[str, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(f"model/{name}", data)
    buffer.seek(0)
    return buffer


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
            buffer = io.BytesIO()
            torch.export.save(program, buffer, extra_files={DESCRIPTION_FILE: graph.description.to_json()})
        temporary.write_bytes(buffer.getbuffer())
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
