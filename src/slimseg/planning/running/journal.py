"""What a run has done so far, kept in its folder, so that a run that was killed goes on where it stopped.

    work/journal.jsonl     who began it and what it was asked for, then one entry a line, in the order in which they
                           were made
    work/*.safetensors     the weights after each phase of training

An entry counts if its line is whole, the files that it speaks of are as they were, and so is everything before it: a
run goes on from the last one that counts. It only goes on under the same conditions, with the same version of slimseg.
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
FORM = 2  # of the entries; to be counted up when entries that were written before can no longer be read


class Journal:
    """Entries of one run; `resumed` tells whether it was begun before."""

    def __init__(self, folder: Path, conditions: dict[str, Any]) -> None:
        """Open or begin the journal in `folder`.

        Raises:
            OutputError: the run there was asked for something else, or begun by another version of slimseg.
        """
        self.path = folder / FILE
        self.conditions = json.loads(json.dumps(conditions))
        self.entries: dict[str, Any] = {}
        self._lines: list[str] = []
        before_s = self._read() if self.path.is_file() else 0.0
        self.resumed = bool(self.entries)
        self.started = time.monotonic() - before_s

    def _read(self) -> float:
        """Everything up to the first line that does not count; the seconds that the run had taken by then."""
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
        """The first line."""
        return {"slimseg": slimseg.__version__, "form": FORM, "asked": self.conditions}

    def _check_version(self, begun: dict[str, Any]) -> None:
        version, form = begun.get("slimseg"), begun.get("form")
        if (version, form) == (slimseg.__version__, FORM):
            return
        wrote = "an earlier slimseg" if version is None else f"slimseg {version}"
        forms = f" (its journal has form {form}, here it is {FORM})" if version == slimseg.__version__ else ""
        raise OutputError(
            f"{self.path.parent.parent} holds an unfinished run of {wrote}, and this is {slimseg.__version__}{forms}: "
            "go on with that version, or give another folder"
        )

    def _check(self, conditions: dict[str, Any]) -> None:
        if conditions != self.conditions:
            names = {**self.conditions, **conditions}
            changed = [name for name in names if conditions.get(name, names) != self.conditions.get(name, names)]
            raise OutputError(
                f"{self.path.parent.parent} holds an unfinished run with another {' and '.join(changed)}: "
                "give what it was started with to go on, or another folder"
            )

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def __getitem__(self, name: str) -> Any:
        return self.entries[name]

    def __setitem__(self, name: str, value: Any) -> None:
        """Keep an entry of JSON values, at once on disk."""
        self.keep(name, value)

    def keep(self, name: str, value: Any, files: Iterable[Path] = ()) -> None:
        """Keep an entry that counts only as long as these files are as they are now."""
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
        """One phase of training, or the weights that it ended with where the run went through it before."""
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
        """Time that the run took, the part before it was killed included as far as it was kept."""
        return time.monotonic() - self.started


def _whole_lines(path: Path) -> Iterator[Any]:
    """What each line says, up to the first one that says nothing."""
    try:
        for line in path.read_bytes().splitlines():
            yield json.loads(line)
    except (OSError, ValueError, RecursionError):
        return


def _digest(path: Path) -> str:
    """Of what a file holds; empty where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def listed(folder: Folder) -> str:
    """A hash of a folder of images: the names and sizes of all that are used."""
    digest = hashlib.sha256()
    for split in (folder.train, folder.val):
        for path in (*split.images, *(split.masks or ())):
            digest.update(f"{path.relative_to(folder.path)} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def fingerprint(graph: Graph) -> str:
    """A hash of a network: its layers, their weights and what it means."""
    digest = hashlib.sha256(f"{graph.input_shape} {graph.description} {graph.module.graph}".encode())
    for name, layer in graph.module.named_children():
        digest.update(f"{name} {layer!r}".encode())  # stride, padding, size, ...
    for name, value in graph.module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
