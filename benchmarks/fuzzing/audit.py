"""What Python imports, opens, starts, compiles and unpickles while hostile files are loaded; children of ours included.

    python -m fuzzing.audit FOLDER COUNT       loads them, in a process that fuzzing/hook watches

Nothing but the package, what it is built of (torch, numpy, ...), Python's own library and the file may turn up.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fuzzing.formats import FORMATS
from fuzzing.herd import search_path
from fuzzing.hostile import files
from fuzzing.seeds import write_all
from fuzzing.trials import Mutant, tried

_BEGIN, _END = "audit begins", "audit ends"
_HERE = Path(__file__).resolve().parent
_KINDS = {
    ".pt2": "pt2", ".keras": "keras", ".h5": "h5", ".onnx": "onnx", ".pth": "weights", ".safetensors": "weights",
    ".tflite": "tflite", ".param": "ncnn",
}  # fmt: skip
_SYSTEM = ("/dev/null", "/dev/urandom", "/proc/", "/sys/", "/usr/share/zoneinfo", "/etc/ld.so.cache")
_MADE_HERE = (
    "<string>",
    "<eval_with_key>",
    "<frozen ",
    "<__array_function__",
    "<attrs",
    "<generated",
    "<torch_package",
)
_SENT = ("slimseg.", "numpy", "builtins.", "pathlib.", "_codecs.", "collections.")


@dataclass(frozen=True)
class Audit:
    """How many files were loaded and refused, counts by event and place, and everything that is nobody's."""

    loaded: int
    refused: int
    foreign: tuple[str, ...]
    counts: dict[str, int]
    outside: tuple[str, ...]


def audited(count: int, seeds: Path | None = None) -> Audit:
    """Load so many hostile files in a watched process, and look at what it did.

    Args:
        seeds: a folder that `write_all` filled; written anew if None.
    """
    with tempfile.TemporaryDirectory(prefix="slimseg-audit-") as scratch:
        folder, log = Path(scratch), Path(scratch) / "audit.jsonl"
        if seeds is None:
            write_all(folder / "seeds")
        else:
            shutil.copytree(seeds, folder / "seeds")
        path = os.pathsep.join([str(_HERE / "hook"), search_path()])
        done = subprocess.run(
            [sys.executable, "-m", "fuzzing.audit", scratch, str(count)],
            cwd=folder, env={**os.environ, "PYTHONPATH": path, "SLIMSEG_AUDIT": str(log)},
            capture_output=True, text=True, timeout=1200, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"the audited process ended with {done.returncode}: {done.stderr[-2000:]}")
        told = json.loads(done.stdout.splitlines()[-1])
        events = [json.loads(line) for line in log.read_text().splitlines()]
        begin, end = events.index(["open", _BEGIN, "r"]), events.index(["open", _END, "r"])
        places = Counter[str]()
        outside = []
        for event, *texts in events[begin + 1 : end]:
            whose = place(event, texts, folder)
            places[f"{event}: {whose or 'OUTSIDE'}"] += 1
            if not whose:
                outside.append(" ".join([event, *texts]))
        if (folder / "OWNED").exists():
            outside.append("a hostile file wrote OWNED")
        return Audit(told["loaded"], told["refused"], tuple(told["foreign"]), dict(places), tuple(outside))


def place(event: str, texts: list[str], folder: Path) -> str:
    """Whose it is; empty where it is nobody's."""
    text = texts[0] if texts else ""
    if event in ("import",):
        return _of_module(text)
    if event == "pickle.find_class":
        return "messages of slimseg's child" if ".".join(texts).startswith(_SENT) else ""
    if event == "subprocess.Popen":
        if texts == ["uname", "['uname', '-p']"]:
            return "Python's library"  # platform asks for the processor
        return "slimseg's child" if "'-m', 'slimseg.runtimes.child'" in texts[-1] else ""
    if event in ("marshal.loads", "code.__new__"):
        return "compiled modules"
    if event in ("ctypes.dlsym",):
        return "the native library it has open"
    if event == "ctypes.dlopen" and text in ("None", "libc.so.6"):
        return "the process itself"
    if event in ("os.system", "os.exec", "os.posix_spawn", "os.fork") or event.startswith(("socket.", "urllib")):
        return ""
    if event == "compile":  # the source, and what it is called
        text = texts[-1]
    return _of_path(text, folder)


@cache
def _of_module(name: str) -> str:
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top.startswith("_"):
        return "Python's library"
    with contextlib.suppress(ValueError, ImportError):
        found = importlib.util.find_spec(top)
        if found is not None and found.origin:
            return _of_path(found.origin, Path("/nowhere"))
    return "not there" if top in _ABSENT else ""


_ABSENT = ("org",)  # Jython's, which Python's own pickle looks for


def _of_path(text: str, folder: Path) -> str:
    if text.isdigit() or text.startswith(_MADE_HERE):
        return "open already" if text.isdigit() else "functions that libraries make"
    path = Path(os.path.abspath(os.path.join(folder, text)))
    library = Path(sysconfig.get_path("stdlib")).resolve(), Path(sysconfig.get_path("platstdlib")).resolve()
    package = _package()
    if path.is_relative_to(package) or path.is_relative_to(_HERE.parent):
        return "slimseg"
    if "site-packages" in path.parts:
        return "torch and other libraries"
    if any(path.is_relative_to(each) for each in library):
        return "Python's library"
    if path.is_relative_to(folder) and path.name != "OWNED":
        return "the file"
    if str(path).startswith(_SYSTEM):
        return "the system"
    return (
        "temporary files" if path.parent == Path(tempfile.gettempdir()) or path == Path(tempfile.gettempdir()) else ""
    )


@cache
def _package() -> Path:
    return Path(importlib.util.find_spec("slimseg").origin).parent  # type: ignore[union-attr, arg-type]


def _load(folder: Path, count: int) -> dict[str, object]:
    """In the watched process: crafted files first, then mutants of every format."""
    for name in FORMATS:  # everything that opening needs is imported before
        for path in sorted((folder / "seeds" / name).iterdir()):
            with contextlib.suppress(Exception):
                FORMATS[name].opens(path)
    every = list(files(folder, folder / "seeds"))
    crafted = every[:: max(1, -(-len(every) // count))]
    _mark(_BEGIN)
    foreign, refused = [], 0
    for path in crafted:
        try:
            FORMATS[_KINDS.get(path.suffix, "image")].opens(path)
        except Exception as error:
            refused += 1
            if not type(error).__module__.startswith("slimseg"):
                foreign.append(f"{path.name}: {type(error).__name__}: {error}"[:300])
    names = list(FORMATS)
    for number in range(count - len(crafted)):
        outcome = tried(Mutant(names[number % len(names)], number, 1), folder)
        refused += outcome.kind == "refused"
        if outcome.kind not in ("refused", "opened"):
            foreign.append(f"{outcome.mutant}: {outcome.said}")
    _mark(_END)
    return {"loaded": count, "refused": refused, "foreign": foreign}


def _mark(text: str) -> None:
    """A line in the log, by an event of our own."""
    sys.audit("open", text, "r", 0)


def show(count: int) -> int:
    """Print the list; 1 where something lies outside."""
    found = audited(count)
    print(f"{found.loaded} hostile files, {found.refused} refused in a sentence of slimseg's")
    for name, number in sorted(found.counts.items()):
        print(f"  {number:6d}  {name}")
    for line in (*found.foreign, *dict.fromkeys(found.outside)):
        print(f"OUTSIDE {line}")
    return int(bool(found.outside or found.foreign))


if __name__ == "__main__":
    print(json.dumps(_load(Path(sys.argv[1]), int(sys.argv[2]))))
