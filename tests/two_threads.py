"""A runtime that slimseg does not know: LiteRT with two threads, under a name and with files of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from slimseg.results import Profile
from slimseg.runtimes import child
from slimseg.runtimes.litert.runtime import LiteRT
from slimseg.runtimes.runtime import Runtime, Session

opened: list[str] = []  # by `TwoThreads.open`, in this process


class TwoThreads(LiteRT):
    name = "two-threads"
    brand = "LiteRT twice"
    title = "LiteRT on two threads"
    suffix = ".lite2"
    target = "lite2"
    forms = ("float32", "int8")
    snippets: ClassVar[Mapping[str, str]] = {}
    export = Runtime.export

    def open(self, path: str | Path, threads: int = 1, options: Any = None) -> Session:
        opened.append(str(path))
        return super().open(path, 2, options)

    def profile(
        self,
        path: Path,
        threads: int = 1,
        runs: int = 50,
        within: child.Child | None = None,
        with_roofs: bool = True,
    ) -> Profile:
        return super().profile(path, 2, runs, within, with_roofs)


def opened_so_far() -> int:
    """How many files this process has opened with it: asked of the child."""
    return len(opened)
