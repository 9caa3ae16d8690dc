"""Keeps the files loaded that a child process was asked about last, so that the next call need not load them again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Loaded = TypeVar("Loaded")


class Kept(Generic[Loaded]):
    """At most `most` loaded files, by a key that changes when a file changes.

    Args:
        close: called with a loaded file that has to go.
    """

    def __init__(self, most: int, close: Callable[[Loaded], object] = lambda _: None) -> None:
        self._most = most
        self._close = close
        self._loaded: OrderedDict[Hashable, Loaded] = OrderedDict()

    def get(self, key: Hashable, load: Callable[[], Loaded]) -> Loaded:
        """The file of this key, loaded now unless it is kept; the one that was asked for longest ago goes."""
        if key not in self._loaded:
            self._loaded[key] = load()
        self._loaded.move_to_end(key)
        while len(self._loaded) > self._most:
            self._close(self._loaded.popitem(last=False)[1])
        return self._loaded[key]
