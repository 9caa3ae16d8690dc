"""Finds what Qualcomm's compiler needs: LiteRT's own tool and plugin, and Qualcomm's libraries.

LiteRT's wheel has the tool `apply_plugin_main` and the plugin. Qualcomm's libraries (libQnnHtp.so, which compiles for
the NPU and simulates it, and three more) come with Qualcomm's SDK for LiteRT, or with onnxruntime-qnn.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from slimseg.disk import scratch
from slimseg.runtimes.litert.npu import empty_library

INSTALL = "pip install 'slimseg[qualcomm]'"
SDK, ONNXRUNTIME = "ai_edge_litert_sdk_qualcomm", "onnxruntime_qnn"
COMPILER, SYSTEM, UNNEEDED = "libQnnHtp.so", "libQnnSystem.so", "libQnnLpai.so"
_NEEDED = (COMPILER, SYSTEM, "libQnnIr.so", "libQnnSaver.so")
_TOOL = Path("tools/apply_plugin_main")
_PLUGIN = Path("vendors/qualcomm/compiler/libLiteRtCompilerPlugin_Qualcomm.so")


@dataclass(frozen=True)
class Libraries:
    """Where everything is, and whose libraries they are."""

    tool: Path  # LiteRT's apply_plugin_main
    plugin: Path  # LiteRT's plugin for Qualcomm
    folder: Path  # Qualcomm's libraries
    package: str  # the Python package that they came with, and its version: "onnxruntime-qnn 2.7.0"

    @property
    def search_path(self) -> str:
        """The folders in which the plugin finds the libraries that it is linked to, for LD_LIBRARY_PATH."""
        if (self.folder / UNNEEDED).exists():
            return str(self.folder)
        return f"{_stand_in()}:{self.folder}"


def find() -> Libraries | None:
    """What is installed here; None if anything is missing."""
    if missing():
        return None
    litert, (package, folder) = _folder("ai_edge_litert"), _qualcomm()
    if litert is None or folder is None:  # `missing` has seen them a moment ago
        return None
    title = f"{package.replace('_', '-')} {_version(package)}"
    return Libraries(litert / _TOOL, litert / _PLUGIN, folder, title)


def missing() -> str:
    """What is missing and how to install it; empty if everything is here."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "Qualcomm's compiler runs on x86-64 Linux only"
    litert = _folder("ai_edge_litert")
    if litert is None or not (litert / _TOOL).exists() or not (litert / _PLUGIN).exists():
        return "this ai-edge-litert has no compiler plugin for Qualcomm: pip install -U ai-edge-litert"
    package, folder = _qualcomm()
    if folder is None:
        return f"Qualcomm's libraries are not installed: {INSTALL}"
    absent = [name for name in _NEEDED if not (folder / name).exists()]
    return f"{package} has no {absent[0]}: {INSTALL}" if absent else ""


def _qualcomm() -> tuple[str, Path | None]:
    """The package with Qualcomm's libraries, and their folder."""
    if _folder(SDK) is not None:
        try:
            return SDK, Path(str(importlib.import_module(SDK).path_to_sdk_libs()))
        except Exception:  # an SDK without its libraries: its installation downloads them, which may have failed
            pass
    return ONNXRUNTIME, _folder(ONNXRUNTIME)


def _folder(package: str) -> Path | None:
    """The folder of an installed package, which is not imported."""
    found = importlib.util.find_spec(package)
    return Path(found.origin).parent if found and found.origin else None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return ""


@functools.cache
def _stand_in() -> Path:
    """A folder of this process with an empty library in place of one that only Qualcomm's SDK has."""
    folder = scratch.root() / "qualcomm"
    folder.mkdir(exist_ok=True)
    empty_library.write(folder / UNNEEDED)
    return folder
