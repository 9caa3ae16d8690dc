"""The journal of a run: its finished steps, kept in its folder so that a killed run can resume.

    work/journal.jsonl     first line: version of slimseg and options of the run; then one entry per line, in order
    work/*.safetensors     the weights after each phase of training

An entry is valid if its line is complete, its files are unchanged, and all entries before it are valid. A run resumes
after the last valid entry, and only with the same options and the same version of slimseg.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import nn

import slimseg
from slimseg.disk import atomic
from slimseg.errors import OutputError
from slimseg.graph.graph import Graph
from slimseg.training.data import Folder

FILE = "journal.jsonl"
FORM = 4  # version of the entries' format; increase it when older entries can no longer be read


class Journal:
    """The entries of one run; `resumed` is True if an earlier process left valid entries."""

    def __init__(self, folder: Path, conditions: dict[str, Any]) -> None:
        """Open the journal in `folder`, or begin one; `conditions` are the options of the run, as JSON values.

        Raises:
            OutputError: the run there has other options, or another version of slimseg began it.
        """
        self.path = folder / FILE
        self.conditions = json.loads(json.dumps(conditions))
        self.entries: dict[str, Any] = {}
        self._lines: list[str] = []
        before_s = self._read() if self.path.is_file() else 0.0
        self.resumed = bool(self.entries)
        self.started = time.monotonic() - before_s

    def _read(self) -> float:
        """Read all valid entries; return the seconds that the run had taken until the last of them."""
        seconds = 0.0
        lines = _whole_lines(self.path)
        begun = next(lines, None)
        if not isinstance(begun, dict):
            return seconds
        self._check_version(begun)
        self._check(begun["asked"])
        for line in lines:
            try:
                name, value, files, taken_s = str(line["name"]), line["value"], dict(line["files"]), line["seconds"]
                if not all(_digest(self.path.parent / path) == digest for path, digest in files.items()):
                    break
                seconds = float(taken_s)
            except (KeyError, TypeError, ValueError):
                break
            self.entries[name] = value
            self._lines.append(json.dumps(line))
        return seconds

    @property
    def _begun(self) -> dict[str, Any]:
        """The first line of the journal."""
        return {"slimseg": slimseg.__version__, "form": FORM, "asked": self.conditions}

    def _check_version(self, begun: dict[str, Any]) -> None:
        version, form = begun.get("slimseg"), begun.get("form")
        if (version, form) == (slimseg.__version__, FORM):
            return
        wrote = "an earlier slimseg" if version is None else f"slimseg {version}"
        forms = f" (its journal has format {form}, here it is {FORM})" if version == slimseg.__version__ else ""
        raise OutputError(
            f"{self.path.parent.parent} holds an unfinished run of {wrote}, and this is {slimseg.__version__}{forms}: "
            "continue with that version, or give another folder"
        )

    def _check(self, conditions: dict[str, Any]) -> None:
        if conditions != self.conditions:
            names = {**self.conditions, **conditions}
            changed = [name for name in names if conditions.get(name, names) != self.conditions.get(name, names)]
            raise OutputError(
                f"{self.path.parent.parent} holds an unfinished run with other settings ({' and '.join(changed)}): "
                "repeat its settings to continue it, or give another folder"
            )

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def __getitem__(self, name: str) -> Any:
        return self.entries[name]

    def __setitem__(self, name: str, value: Any) -> None:
        """Add an entry of JSON values, and write it to disk at once."""
        self.keep(name, value)

    def keep(self, name: str, value: Any, files: Iterable[Path] = ()) -> None:
        """Add an entry that is valid only as long as `files` keep their present contents."""
        digests = {}
        for path in files:
            atomic.settle(path)
            digests[os.path.relpath(path, self.path.parent)] = _digest(path)
        line = json.dumps({"name": name, "value": value, "files": digests, "seconds": self.seconds})
        lines = [json.dumps(self._begun), *self._lines, line]
        atomic.write("".join(f"{each}\n" for each in lines).encode(), self.path)
        self._lines.append(line)
        self.entries[name] = value

    def trained(self, phase: str, module: nn.Module, train: Callable[[], object]) -> None:
        """Run one phase of training; if the journal has it already, load its final weights instead."""
        path = self.path.with_name(f"{phase}.safetensors")
        if phase in self:
            module.load_state_dict(load_file(path))
            return
        train()
        weights = module.state_dict().items()
        values = {name: value.clone(memory_format=torch.contiguous_format) for name, value in weights}
        atomic.write(save(values), path)
        self.keep(phase, path.name, [path])

    @property
    def seconds(self) -> float:
        """Seconds that the run has taken, including earlier processes up to their last valid entry."""
        return time.monotonic() - self.started


def _whole_lines(path: Path) -> Iterator[Any]:
    """The JSON value of each line, up to the first line that is not valid JSON."""
    try:
        for line in path.read_bytes().splitlines():
            yield json.loads(line)
    except (OSError, ValueError, RecursionError):
        return


def _digest(path: Path) -> str:
    """SHA-256 of a file's contents in hexadecimal; empty if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def listed(folder: Folder) -> str:
    """A hash of an image folder: of the names and sizes of all images and masks that are used."""
    digest = hashlib.sha256()
    for split in (folder.train, folder.val):
        for path in (*split.images, *(split.masks or ())):
            digest.update(f"{path.relative_to(folder.path)} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def fingerprint(graph: Graph) -> str:
    """A hash of a network: of its layers, its weights, its input shape and its description."""
    digest = hashlib.sha256(f"{graph.input_shape} {graph.description} {graph.module.graph}".encode())
    for name, layer in graph.module.named_children():
        digest.update(f"{name} {layer!r}".encode())  # stride, padding, size, ...
    for name, value in graph.module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
