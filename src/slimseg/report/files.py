"""Results as JSON files, written without ever destroying the file that was there."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from slimseg.disk import atomic
from slimseg.errors import OutputError, harmless
from slimseg.results import Result

Read = TypeVar("Read", bound=Result)


def to_json(result: Result) -> str:
    """Strict JSON: tuples become lists, and a number that is not finite becomes null (JSON has no NaN).

    Characters that control a terminal are escaped.
    """
    text = json.dumps(_strict(result.as_dict()), indent=2, ensure_ascii=False, allow_nan=False)
    return "\n".join(line if line.isprintable() else _escaped(line) for line in text.split("\n"))


def _escaped(line: str) -> str:
    return "".join(
        letter if letter.isprintable() else json.dumps(letter)[1:-1].replace("\x7f", "\\u007f") for letter in line
    )


def harmless_text(value: Any) -> Any:
    """A value for a template, without characters that change the direction of writing or control a terminal."""
    return value if not isinstance(value, str) or value.isprintable() else type(value)(harmless(value))


def write_json(result: Result, path: str | os.PathLike[str]) -> None:
    """Write `to_json(result)` to `path`, completely or not at all.

    Raises:
        OutputError: `path` cannot be written; an existing file stays unchanged.
    """
    write_text(to_json(result) + "\n", path)


def write_text(text: str, path: str | os.PathLike[str]) -> None:
    """Write `text` as UTF-8 beside `path` and rename it, so that a reader sees either the old file or the new one.

    Raises:
        OutputError: there is no room, no permission, no such folder, or a folder at `path`.
    """
    atomic.write(text.encode(), path)


def read_json(kind: type[Read], path: str | os.PathLike[str]) -> Read:
    """A result that `write_json` wrote.

    Raises:
        OutputError: the file is missing or incomplete.
    """
    try:
        found = _built(kind, json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} is missing or damaged: remove its folder, or give another one") from error
    assert isinstance(found, kind)
    return found


def _built(kind: Any, value: Any) -> Any:
    """A JSON value converted to the type of a result's field; null becomes NaN for a number that cannot be None."""
    if is_dataclass(kind):
        types = get_type_hints(kind)
        given = {each.name: value[each.name] for each in fields(kind) if each.name in value}
        return kind(**{name: _built(types[name], each) for name, each in given.items()})  # type: ignore[operator]
    inner = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return None if value is None else _built(next(each for each in inner if each is not type(None)), value)
    if get_origin(kind) is tuple:
        inner = inner[:1] * len(value) if inner[1:] == (...,) else inner
        return tuple(_built(*each) for each in zip(inner, value, strict=True))
    if get_origin(kind) is dict:
        return {key: _built(inner[1], each) for key, each in value.items()}
    return math.nan if kind is float and value is None else value


def _strict(value: Any) -> Any:
    """The value in types that JSON has: numpy scalars become Python's, tuples lists, NaN and infinity null."""
    if isinstance(value, Mapping):
        return {str(key): _strict(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
