"""Imports go one way, as DESIGN.md draws them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from slimseg.runtimes import registry

PACKAGE = Path(__file__).parents[1] / "src" / "slimseg"
# From the top down; a file belongs to the longest path that it begins with.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("__init__", "__main__", "cli", "demonstration"),
    ("commands", "models"),
    ("planning/running",),
    ("exporting",),
    ("quantisation",),
    ("planning/choosing",),
    ("planning/pricing", "planning/__init__"),
    ("report",),
    ("training",),
    ("techniques", "runtimes", "frontends"),
    ("blocks",),
    ("tflite", "onnx_format"),
    ("graph",),
    ("disk",),
    ("results", "tensors", "errors", "progress", "console", "stopping", "pace"),
    ("ratios", "memory_bounds", "deployment"),
)
LITERT: tuple[tuple[str, ...], ...] = (
    ("runtime", "quantiser", "exporter", "artefact", "__init__"),
    ("gpu", "npu"),
    ("tasks",),
    ("quantising",),
    ("profiling",),
    ("writing",),
    ("session", "refused", "placing"),
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
LITERT_RANK = {f"runtimes/litert/{part}": rank for rank, parts in enumerate(LITERT) for part in parts}
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_NAMING = 4  # most files outside a runtime's folder that name it
# ONNX Runtime is also what `.onnx` sources are compared with, and its package for Qualcomm holds their simulator.
OTHER_USES = {"onnx": ("frontends/", "runtimes/litert/npu/")}


def room(name: str, rank: dict[str, int] = RANK) -> str:
    """The longest part of a path, without its suffix, that has a place; empty where it has none."""
    parts = name.split("/")
    return next((part for end in range(len(parts), 0, -1) if (part := "/".join(parts[:end])) in rank), "")


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path, typing: bool = False) -> Iterator[str]:
    """Full names of everything a file imports, within functions, too; type-checking imports run nothing."""
    tree = parsed(path)
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and not typing
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[str]:
    """What it imports of the package, as paths."""
    names = [name for name in imports(path) if name.startswith("slimseg.")]
    return {name.removeprefix("slimseg.").replace(".", "/") for name in names}


def test_every_file_has_its_place():
    assert all(room(place(path)) for path in FILES), "a new module must be given a layer in this test"
    assert all(room(place(path), LITERT_RANK) for path in FILES if place(path).startswith("runtimes/litert"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    own = place(path)
    if own == "__init__":
        return  # the public names, each imported when first asked for
    for rank in (RANK, LITERT_RANK):
        if not room(own, rank):
            continue
        others = {room(name, rank) for name in ours(path)} - {""}
        upward = {other for other in others if rank[other] < rank[room(own, rank)]}
        assert not upward, f"{own} imports {upward} from above"


@pytest.mark.parametrize(
    ("part", "others"),
    [
        ("techniques", {"runtimes", "frontends"}),
        ("runtimes", {"techniques", "frontends"}),
        # A frontend may run its source, for comparison, in the source's own runtime, and native code in the child.
        ("frontends", {"techniques"}),
    ],
)
def test_parts_of_one_height_stay_apart(part, others):
    for path in (PACKAGE / part).rglob("*.py"):
        assert not {name.partition("/")[0] for name in ours(path)} & others, path


@pytest.mark.parametrize("target", registry.EXPORTERS)
def test_a_runtimes_name_stays_in_its_folder(target):
    """The registry and the options of the command line name it, and at most two files more."""
    exporter = registry.EXPORTERS[target]
    folder = PACKAGE / "runtimes" / exporter.package.removeprefix("slimseg.runtimes.")
    assert folder.is_dir()
    named = re.compile(rf"\b({re.escape(folder.name)}|{re.escape(exporter.brand)})\b", re.IGNORECASE)
    naming = [place(path) for path in FILES if folder not in path.parents and named.search(path.read_text())]
    naming = [name for name in naming if not name.startswith(OTHER_USES.get(target, ()))]
    assert {"runtimes/registry", "cli/options"} <= set(naming)
    assert len(naming) <= MOST_NAMING, naming


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_torchvision(path):
    assert not [name for name in imports(path, typing=True) if name.split(".")[0] == "torchvision"]


def test_importing_slimseg_is_light():
    """And the profile of a file needs no torch, which takes seconds to import."""
    code = "import sys, slimseg; print(*{'torch', 'numpy', 'ai_edge_litert', 'rich', 'jinja2'} & set(sys.modules))"
    more = "import slimseg.commands.profile, slimseg.report.terminal; print(*{'torch'} & set(sys.modules))"
    command = [sys.executable, "-c", f"{code}; {more}"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    assert result.stdout.strip() == ""


def test_loading_a_model_needs_no_torchvision():
    load = "import slimseg, torch; slimseg.load(torch.nn.Conv2d(3, 4, 3), (16, 16))"
    code = f"import sys; sys.modules['torchvision'] = None; {load}"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, check=True, timeout=1200)
