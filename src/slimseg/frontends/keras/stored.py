"""The contents of a Keras file, read with h5py alone, within memory limits, and not trusted. Runs in the child process.

.keras   a zip of config.json, metadata.json and model.weights.h5 (groups of arrays by position)
.h5      one HDF5 file: attribute model_config, group model_weights (arrays by name)
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from slimseg import memory_bounds
from slimseg.errors import ModelError

Array = np.ndarray[Any, Any]
MAX_BYTES = 2 << 30  # bytes of weights
MAX_CONFIG_BYTES = 64 << 20
DEEPEST = 300  # levels of nested lists and dictionaries
MAX_LISTS = 500_000  # lists and dictionaries in the configuration
MAX_OBJECTS = 200_000
SLACK_BYTES = 64 << 20
_COMPRESSION = 16  # most unpacked bytes per stored byte; weights hardly compress, so a larger ratio is a bomb


@dataclass
class Stored:
    """`arrays`: by path in the HDF5 file. `names`: by group, the layer name that newer `.keras` files store there."""

    config: Any
    version: str
    layout: str  # "keras" or "h5"
    arrays: dict[str, Array] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    halves: bool = False  # whether weights (not just single numbers) were float16


def read(path: str) -> Stored:
    """Read a `.keras` or `.h5` file; its content decides which it is, not its suffix.

    Raises:
        ModelError: it is neither, damaged, too large, or holds only weights.
    """
    try:
        import h5py  # noqa: F401
    except ImportError:
        raise ModelError(f"{path} needs h5py to be opened: pip install 'slimseg[keras]'") from None
    limit_memory(path, 8 * SLACK_BYTES)
    return contents(path)


def contents(path: str) -> Stored:
    """`read` without setting a memory limit, for a process that has one already."""
    try:
        return _read_archive(path) if zipfile.is_zipfile(path) else _read_h5(path)
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(f"{path} is damaged or not a Keras file: save it again with model.save") from error
    except (MemoryError, RecursionError) as error:
        raise ModelError(f"{path} needs more memory than any network: refused") from error
    except Exception as error:  # zlib, json and HDF5 raise many kinds of errors for damaged content
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(f"{path} is damaged ({reason}): save it again with model.save") from error


def limit_memory(path: str, slack_bytes: int) -> None:
    """Limit memory to what this process uses, some times the file's size, and slack: damaged sizes can be huge."""
    with contextlib.suppress(OSError):  # only Linux reports how much memory is in use
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        held = pages * os.sysconf("SC_PAGE_SIZE")
        memory_bounds.limit_process("RLIMIT_AS", held + 6 * Path(path).stat().st_size + slack_bytes)


def _read_archive(path: str) -> Stored:
    with zipfile.ZipFile(path) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        for name, limit in (("config.json", MAX_CONFIG_BYTES), ("model.weights.h5", MAX_BYTES)):
            if name not in infos:
                raise ModelError(f"{path} has no {name}: save the whole network with model.save('network.keras')")
            packed, size = infos[name].compress_size, infos[name].file_size
            if size > min(limit, _COMPRESSION * packed + SLACK_BYTES):
                raise ModelError(f"{path} unpacks to {size >> 20} MB of {name}: refused")
        config = _configuration(archive.read("config.json").decode(), path)
        version = _version(archive.read("metadata.json")) if _small(infos.get("metadata.json")) else "3"
        weights = archive.read("model.weights.h5")
    held = Stored(config, version, "keras")
    _collect(io.BytesIO(weights), len(weights), held, path)
    return held


def _small(info: zipfile.ZipInfo | None) -> bool:
    return info is not None and info.file_size < 1 << 20


def _version(metadata: bytes) -> str:
    return str(json.loads(metadata).get("keras_version", "3"))


def _read_h5(path: str) -> Stored:
    import h5py

    size = Path(path).stat().st_size
    with h5py.File(path, "r") as file:
        text = file.attrs.get("model_config")
        if text is None:
            raise ModelError(f"{path} holds weights without a network: save the whole network with model.save")
        version = _text(file.attrs.get("keras_version", "2"))
    held = Stored(_configuration(_text(text), path), version, "h5")
    _collect(path, size, held, path, "model_weights")
    return held


def _configuration(text: str, path: str) -> Any:
    """The network's configuration, within bounds: an empty list is two bytes of text and a hundred bytes of memory."""
    if len(text) > MAX_CONFIG_BYTES or sum(map(text.count, "[{")) > MAX_LISTS or text.count(",") > 4 * MAX_LISTS:
        raise ModelError(f"{path} has a configuration of {len(text) >> 20} MB, more than any network: refused")
    config = json.loads(text)
    level, depth = [config] if isinstance(config, dict | list) else [], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise ModelError(f"{path} has a configuration that nests more than {DEEPEST} lists: refused")
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [item for items in inner for item in items if isinstance(item, dict | list)]
    return config


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _collect(source: Any, size: int, held: Stored, path: str, top: str = "/") -> None:
    """Collect every array below the group `top`; only hard links are followed, so no other file is ever read."""
    import h5py

    budget = min(MAX_BYTES, _COMPRESSION * size + SLACK_BYTES)
    with h5py.File(source, "r") as file:
        if top not in file:
            raise ModelError(f"{path} has no weights inside: save the whole network with model.save")
        pending = [(top.strip("/"), file[top])]
        seen = 0
        while pending:
            where, group = pending.pop()
            if "name" in group.attrs:
                held.names[where] = _text(group.attrs["name"])
            for key in group:
                seen += 1
                inner = f"{where}/{key}".strip("/")
                if seen > MAX_OBJECTS or inner.count("/") > 100:
                    raise ModelError(f"{path} nests or holds more groups than a network has: refused")
                if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                    raise ModelError(f"{path} links to {inner} instead of holding it: save the whole network again")
                child = group[key]
                if isinstance(child, h5py.Group):
                    if key != "optimizer":
                        pending.append((inner, child))
                    continue
                budget -= child.nbytes
                if budget < 0:
                    raise ModelError(f"{path} unpacks to more than its size can hold: refused")
                if child.external or child.is_virtual:
                    raise ModelError(f"{path} keeps {inner} in another file: save the whole network again")
                held.halves |= child.dtype == np.float16 and len(child.shape) > 1
                if child.dtype.kind in "fiubV":  # numbers only: no strings, no references
                    held.arrays[inner] = _numbers(child)


def _numbers(dataset: Any) -> Array:
    if dataset.dtype.kind == "V" or _text(dataset.attrs.get("dtype", "")) == "bfloat16":
        raise ModelError(f"{dataset.name} is stored as bfloat16: save the network in float32")
    values: Array = dataset[()]
    return np.asarray(values, np.float32) if dataset.dtype.kind == "f" else np.asarray(values)
