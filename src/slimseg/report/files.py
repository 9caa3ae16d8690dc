"""Results as files: JSON for machines, and writing that never destroys what was there."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slimseg.errors import OutputError, harmless
from slimseg.results import Result


def to_json(result: Result) -> str:
    """Strict JSON: tuples are lists, and a number that is not finite is null (JSON has no NaN).

    Characters that a terminal would obey are escaped.
    """
    text = json.dumps(_strict(result.as_dict()), indent=2, ensure_ascii=False, allow_nan=False)
    return "\n".join(line if line.isprintable() else _escaped(line) for line in text.split("\n"))


def _escaped(line: str) -> str:
    return "".join(
        letter if letter.isprintable() else json.dumps(letter)[1:-1].replace("\x7f", "\\u007f") for letter in line
    )


def harmless_text(value: Any) -> Any:
    """What a template is given, without characters that turn the direction of writing or steer a terminal."""
    return value if not isinstance(value, str) or value.isprintable() else type(value)(harmless(value))


def write_json(result: Result, path: str | os.PathLike[str]) -> None:
    """Write `to_json(result)` to `path`, whole or not at all.

    Raises:
        OutputError: `path` cannot be written; what was there is still there.
    """
    write_text(to_json(result) + "\n", path)


def write_text(text: str, path: str | os.PathLike[str]) -> None:
    """Write `text` as UTF-8 beside `path` and rename, so that a reader sees the old file or the new one.

    Raises:
        OutputError: no room, no permission, no such folder, or a folder in the way.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except OSError as error:
        _discard(temporary)
        raise OutputError(f"{target} cannot be written: {_advice(error)}") from error
    except BaseException:
        _discard(temporary)
        raise


def _discard(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:
        return  # the folder itself is out of reach, so nothing of ours is in it


_ADVICE = {
    errno.EISDIR: "a folder of that name is in the way; give a file name",
    errno.ENOTDIR: "a part of the path is a file; give a path inside a folder",
    errno.ENOENT: "its folder does not exist; create the folder first",
    errno.ENOSPC: "there is no room left on the disk; free some or choose another place",
    errno.EDQUOT: "the disk quota is used up; free some room or choose another place",
    errno.EACCES: "permission denied; choose a place that you may write to",
    errno.EPERM: "permission denied; choose a place that you may write to",
    errno.EROFS: "the file system is read-only; choose another place",
}


def _advice(error: OSError) -> str:
    return _ADVICE.get(error.errno or 0, f"{error.strerror or error}; choose another place")


def _strict(value: Any) -> Any:
    """Only what JSON knows: numpy scalars become Python's, tuples lists, NaN and infinity null."""
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
