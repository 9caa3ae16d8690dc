"""Imports go one way, as DESIGN.md draws them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "slimseg"
LAYERS: tuple[tuple[str, ...], ...] = (
    ("__init__", "__main__", "cli", "demonstration"),
    ("commands", "models"),
    ("planning", "quantisation", "exporting", "training", "report"),
    ("techniques", "runtimes", "frontends"),
    ("blocks",),
    ("graph",),
    ("disk",),
    ("results", "errors", "progress", "console", "stopping"),
    ("ratios", "memory_bounds", "deployment"),
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path, typing: bool = False) -> Iterator[str]:
    """Full names of everything a file imports, within functions, too; type-checking imports run nothing."""
    tree = ast.parse(path.read_text())
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
    return {name.split(".")[1] for name in imports(path) if name.startswith("slimseg.") and name.count(".")}


def test_every_part_has_its_place():
    assert {part_of(path) for path in FILES} <= set(RANK), "a new module must be given a layer in this test"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    own = part_of(path)
    if own == "__init__":
        return  # the public names, each imported when first asked for
    upward = {part for part in ours(path) & set(RANK) if RANK[part] < RANK[own]}
    assert not upward, f"{own} imports {upward} from above"


@pytest.mark.parametrize(
    ("part", "others"),
    [
        ("techniques", {"runtimes", "frontends"}),
        ("runtimes", {"techniques", "frontends"}),
        # A frontend may read a runtime's own file format with that runtime's reader, and native code in the child.
        ("frontends", {"techniques"}),
    ],
)
def test_parts_of_one_height_stay_apart(part, others):
    for path in (PACKAGE / part).rglob("*.py"):
        assert not ours(path) & others, path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_torchvision(path):
    assert not [name for name in imports(path, typing=True) if name.split(".")[0] == "torchvision"]


def test_importing_slimseg_is_light():
    code = "import sys, slimseg; print(*{'torch', 'numpy', 'ai_edge_litert', 'rich', 'jinja2'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert result.stdout.strip() == ""


def test_loading_a_model_needs_no_torchvision():
    load = "import slimseg, torch; slimseg.load(torch.nn.Conv2d(3, 4, 3), (16, 16))"
    code = f"import sys; sys.modules['torchvision'] = None; {load}"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, check=True, timeout=1200)
