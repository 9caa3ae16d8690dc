"""Refuses edits that move a layer off one of the phone's processors, or cut a processor's part of the network in two.

A processor that is not in this machine cannot be timed. But its delegate or compiler says which layers of a file it
takes, and a layer that it leaves to the CPU costs two copies.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from weakref import WeakKeyDictionary

from slimseg.deployment import Deployment
from slimseg.disk import scratch
from slimseg.errors import SlimsegError
from slimseg.graph.graph import Graph
from slimseg.results import LayerPlacement, Placement
from slimseg.runtimes import registry
from slimseg.runtimes.processor import Processor


class Guard:
    """The processors of a deployment beside the one that files are timed on; asks each about a file once."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.processors = registry.others(deployment)
        self._placed: dict[tuple[str, Path], Placement] = {}
        self._known: WeakKeyDictionary[Graph, Path] = WeakKeyDictionary()  # files that every processor has answered for

    def objection(self, before: Path, after: Path) -> str | None:
        """The reason against an edit that makes the file `after` from the file `before`, or None."""
        for each in self.processors:
            try:
                reason = _worse(self._of(each, before), self._of(each, after))
            except SlimsegError as error:
                return f"{each.name} cannot be asked about it: {error}"
            if reason is not None:
                return reason
        return None

    def objection_to(self, before: Graph, after: Graph) -> str | None:
        """The same for two networks, written in floating point."""
        if not self.processors:
            return None
        with scratch.folder() as folder:
            paths = [self._known.get(graph) or self._written(graph, folder) for graph in (before, after)]
            reason = self.objection(*paths)
        for graph, path in zip((before, after), paths, strict=True):
            if all((each.name, path) in self._placed for each in self.processors):
                self._known[graph] = path
        return reason

    def gains(self, before: Path, after: Path) -> bool:
        """Whether a processor takes more layers of the file `after` than of `before`, and none takes fewer."""
        if self.objection(before, after) is not None:
            return False
        counts = [[len(self._of(each, path).refused) for path in (before, after)] for each in self.processors]
        return any(new < old for old, new in counts)

    def _written(self, graph: Graph, folder: Path) -> Path:
        its = registry.known(self.deployment.runtime)
        path = folder / f"{len(list(folder.iterdir()))}{its.suffix}"
        its.write(graph, path)
        return path

    def _of(self, processor: Processor, path: Path) -> Placement:
        key = processor.name, path
        if key not in self._placed:
            self._placed[key] = processor.partition(path)
        return self._placed[key]


def _worse(before: Placement, after: Placement) -> str | None:
    if len(after.refused) > len(before.refused):
        new = Counter(layer.op for layer in after.refused) - Counter(layer.op for layer in before.refused)
        example = next((layer for layer in after.refused if layer.op in new), after.refused[0])
        return f"{after.processor} would leave {_said(example)} to the CPU"
    if after.partitions > max(1, before.partitions):
        return f"{after.processor} would run it in {after.partitions} parts instead of {before.partitions}"
    return None


def _said(layer: LayerPlacement) -> str:
    return f"{layer.op} ({layer.reason})" if layer.reason else layer.op
