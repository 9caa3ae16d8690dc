"""What a run has done so far, kept in its folder, so that a run that was killed goes on where it stopped.

One JSON file of named entries, rewritten whole at each, and the weights after each phase of training beside it. It
also knows what the run was asked for: a run is only gone on with under the same conditions.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from slimseg.errors import OutputError
from slimseg.graph.graph import Graph
from slimseg.report.files import write_text

FILE = "journal.json"


class Journal:
    """Entries of one run; `resumed` tells whether it was begun before."""

    def __init__(self, folder: Path, conditions: dict[str, Any]) -> None:
        """Open or begin the journal in `folder`.

        Raises:
            OutputError: the run there was asked for something else, or its journal is damaged.
        """
        self.path = folder / FILE
        self.conditions = json.loads(json.dumps(conditions))
        self.entries: dict[str, Any] = {}
        self.resumed = self.path.is_file()
        before_s = self._read() if self.resumed else 0.0
        self.started = time.monotonic() - before_s

    def _read(self) -> float:
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            conditions, entries, seconds = dict(stored["conditions"]), dict(stored["entries"]), float(stored["seconds"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{self.path} is damaged: give another folder for the run, or remove this one") from error
        if conditions != self.conditions:
            names = {**self.conditions, **conditions}
            changed = [name for name in names if conditions.get(name, names) != self.conditions.get(name, names)]
            raise OutputError(
                f"{self.path.parent.parent} holds an unfinished run with another {' and '.join(changed)}: "
                "give what it was started with to go on, or another folder"
            )
        self.entries = entries
        return seconds

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def __getitem__(self, name: str) -> Any:
        return self.entries[name]

    def __setitem__(self, name: str, value: Any) -> None:
        """Keep an entry of JSON values, at once on disk."""
        entries = {**self.entries, name: value}
        stored = {"conditions": self.conditions, "seconds": self.seconds, "entries": entries}
        write_text(json.dumps(stored, indent=1) + "\n", self.path)
        self.entries = entries

    def trained(self, phase: str, module: nn.Module, train: Callable[[], object]) -> None:
        """One phase of training, or the weights that it ended with where the run went through it before."""
        path = self.path.with_name(f"{phase}.safetensors")
        if phase in self:
            module.load_state_dict(load_file(path))
            return
        train()
        weights = module.state_dict().items()
        save_file({name: value.clone(memory_format=torch.contiguous_format) for name, value in weights}, path)
        self[phase] = path.name

    @property
    def seconds(self) -> float:
        """Time that the run took, the part before it was killed included as far as it was kept."""
        return time.monotonic() - self.started


def fingerprint(graph: Graph) -> str:
    """A hash of a network: its layers, their weights and what it means."""
    digest = hashlib.sha256(f"{graph.input_shape} {graph.description} {graph.module.graph}".encode())
    for name, layer in graph.module.named_children():
        digest.update(f"{name} {layer!r}".encode())  # stride, padding, size, ...
    for name, value in graph.module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
