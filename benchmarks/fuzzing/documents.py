"""Mutations of JSON, and of zip archives: entries change, checksums are right again."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

from fuzzing import plain
from fuzzing.values import TEXTS, Random, chosen, replacement

_MOST_PLACES = 20_000
DEPTHS = (50, 500, 5_000, 200_000)


def json_mutated(random: Random, text: bytes) -> bytes:
    """One to three values replaced, removed, doubled or exchanged; now and then deep nesting, or bytes."""
    try:
        document = json.loads(text)
    except ValueError:
        return plain.mutated(random, text)
    if random.random() < 0.03:
        return _nested(random, text)
    for _ in range(int(random.integers(1, 4))):
        _change(random, document)
    try:
        return json.dumps(document).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return plain.mutated(random, text)


def _nested(random: Random, text: bytes) -> bytes:
    depth = chosen(random, DEPTHS)
    pair = chosen(random, ((b"[", b"]"), (b'{"a":', b"}")))
    middle = text if random.random() < 0.5 else b"0"
    return pair[0] * depth + middle + pair[1] * depth


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in a document, but for so many that it would take long."""
    waiting, seen = [value], 0
    while waiting and seen < _MOST_PLACES:
        container = waiting.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            seen += 1
            yield container, key
            if isinstance(container[key], dict | list):
                waiting.append(container[key])


def _change(random: Random, document: Any) -> None:
    places = list(_places(document)) if isinstance(document, dict | list) else []
    if not places:
        return
    container, key = chosen(random, places)
    kind = random.random()
    if kind < 0.5:
        container[key] = replacement(random, container[key])
    elif kind < 0.65:
        del container[key]
    elif kind < 0.75 and isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    elif kind < 0.95:  # what stands elsewhere in the document: names and operators that are known
        other, there = chosen(random, places)
        container[key] = copy.deepcopy(other[there])
    elif isinstance(container, dict):
        container[chosen(random, TEXTS[:12])] = container.pop(key)


def zip_mutated(random: Random, data: bytes) -> bytes:
    """An archive with one or two entries changed, renamed, left out or added; stored or deflated."""
    entries = read_zip(data)
    for _ in range(int(random.integers(1, 3))):
        name = chosen(random, list(entries))
        kind = random.random()
        if kind < 0.75:
            content = entries[name]
            is_json = content[:1] in (b"{", b"[")
            entries[name] = (json_mutated if is_json else plain.mutated)(random, content)
        elif kind < 0.83:
            del entries[name]
        elif kind < 0.91:
            entries[chosen(random, (*TEXTS[:13], name + "x"))] = entries[name]
        else:
            entries[name] = entries[chosen(random, list(entries))]
        if not entries:
            break
    return write_zip(entries, chosen(random, (zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def read_zip(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name.encode("utf-8", "replace").decode().replace("\x00", "0"), content)
    return stream.getvalue()
