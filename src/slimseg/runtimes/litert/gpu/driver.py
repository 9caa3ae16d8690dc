"""Finds Vulkan drivers. The delegate computes through Vulkan, so one of them must be there to ask it.

A driver is described by a small JSON file, its manifest. The Vulkan loader reads the manifests that an environment
variable names, or those in a few folders of the system. A software driver serves as well as a real GPU for placement
and numbers: SwiftShader is part of Chromium, and Debian's package `chromium` has its manifest.

Source: https://github.com/KhronosGroup/Vulkan-Loader/blob/main/docs/LoaderDriverInterface.md
"""

from __future__ import annotations

import ctypes.util
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slimseg.disk import scratch
from slimseg.errors import UserError

INSTALL = (
    "install a GPU's own Vulkan driver, or Debian's package chromium, which brings the software driver SwiftShader"
)
VARIABLES = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES")  # the second is the older name of the first
_SYSTEM = ("/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/usr/share/vulkan/icd.d")
_BROWSERS = ("/usr/lib/chromium", "/usr/lib64/chromium-browser", "/opt/google/chrome", "/snap/chromium/current/usr/lib")
_SWIFTSHADER = "vk_swiftshader_icd.json"
_SOFTWARE = ("swiftshader", "lvp", "llvmpipe", "mock")
_DEVICES = ("dri/renderD*", "nvidia[0-9]*", "kgsl-3d0", "mali0", "dxg")  # in /dev, where there is a GPU
_LOADER = "libvulkan.so.1"


@dataclass(frozen=True)
class Driver:
    """One or several manifests that the Vulkan loader is given, and the loader if the system has none.

    Several are those of a system with a GPU: the loader ignores drivers without their hardware.
    """

    manifests: tuple[Path, ...]
    loader: Path | None = None
    said: bool = False  # whether the user named it

    @property
    def is_software(self) -> bool:
        """Whether all of it computes on the CPU, by the manifests' names; the delegate knows better."""
        return all(_is_software(manifest) for manifest in self.manifests)

    def environment(self) -> dict[str, str]:
        """Variables for the child process, which must have them when it starts."""
        names = os.pathsep.join(map(str, self.manifests))
        runtime = os.environ.get("XDG_RUNTIME_DIR") or str(scratch.root())
        return {**dict.fromkeys(VARIABLES, names), "XDG_RUNTIME_DIR": runtime}

    def __str__(self) -> str:
        return ", ".join(map(str, self.manifests))


def candidates(named: Path | None = None) -> tuple[Driver, ...]:
    """The drivers that may work on this machine, the best first.

    A driver that the user named, as `named` or by an environment variable of Vulkan, is the only one.

    Raises:
        UserError: the named driver is missing or is no driver.
    """
    if named is not None:
        return (_driver((_manifest(named),), said=True),)
    for variable in VARIABLES:
        if value := os.environ.get(variable):
            return (_driver(tuple(_manifest(Path(each), variable) for each in value.split(os.pathsep)), said=True),)
    if sys.platform != "linux":
        return ()
    system = [manifest for folder in _SYSTEM for manifest in sorted(Path(folder).glob("*.json"))]
    hardware = tuple(each for each in system if not _is_software(each)) if has_gpu() else ()
    software = [manifest for folder in _BROWSERS if (manifest := Path(folder, _SWIFTSHADER)).is_file()]
    software += [each for each in system if _is_software(each)]
    groups = [hardware, *((each,) for each in software)]
    return tuple(_driver(group) for group in groups if group)


def has_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether the system shows a GPU to programs."""
    return any(next(devices.glob(pattern), None) is not None for pattern in _DEVICES)


def _driver(manifests: tuple[Path, ...], said: bool = False) -> Driver:
    beside = (manifest.parent / _LOADER for manifest in manifests)
    own = None if ctypes.util.find_library("vulkan") else next((each for each in beside if each.is_file()), None)
    return Driver(manifests, own, said)


def _is_software(manifest: Path) -> bool:
    return any(word in manifest.name.lower() for word in _SOFTWARE)


def _manifest(path: Path, said_by: str = "--vulkan-driver") -> Path:
    """The manifest that a user means by it, or by its library, or by the folder with either."""
    found = next(_manifests(path.expanduser()), None)
    if found is None:
        raise UserError(f"{said_by} {path} is no Vulkan driver: give its manifest, a JSON file with `library_path`")
    return found.resolve()


def _manifests(path: Path) -> Iterator[Path]:
    folder = path if path.is_dir() else path.parent
    for each in [path] if path.suffix == ".json" else sorted(folder.glob("*.json")):
        library = _library(each)
        if library and (path in (each, folder) or Path(library).name == path.name):
            yield each


def _library(manifest: Path) -> str:
    """The library that a manifest names; empty if the file is no manifest."""
    try:
        content = json.loads(manifest.read_text()) if manifest.stat().st_size < 1 << 20 else {}
        return str(content["ICD"]["library_path"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
