"""What is missing is said in one sentence, and an empty library lets the plugin load."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from slimseg.errors import UserError
from slimseg.runtimes import registry
from slimseg.runtimes.litert.npu import compiler, empty_library, libraries

LINUX = sys.platform == "linux" and platform.machine() == "x86_64"


@pytest.mark.skipif(not LINUX, reason="a library for x86-64 Linux")
def test_the_systems_loader_accepts_the_empty_library(tmp_path):
    """As what another library is linked to, too, which is asked for by name."""
    path = tmp_path / "libEmpty.so"
    empty_library.write(path)
    loaded = ctypes.CDLL(str(path))
    assert not hasattr(loaded, "anything")
    command = [sys.executable, "-c", "import ctypes; ctypes.CDLL('libEmpty.so'); print('loads')"]
    found = subprocess.run(
        command, env={"LD_LIBRARY_PATH": str(tmp_path)}, capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout == "loads\n"


def test_without_qualcomms_libraries_it_is_said_what_to_install(monkeypatch, tiny):
    monkeypatch.setattr(libraries, "_qualcomm", lambda: (libraries.ONNXRUNTIME, None))
    assert libraries.find() is None
    (npu,) = registry.processors(registry.DEFAULT, "npu:sm8750")
    if LINUX:
        assert libraries.INSTALL in npu.missing()
    assert not npu.computes
    with pytest.raises(UserError, match=r"cannot be asked: .*(pip install|Linux only)"):
        npu.place(tiny)
    with pytest.raises(UserError, match="cannot be asked"):
        compiler.installed()


def test_a_package_without_a_library_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(libraries, "_qualcomm", lambda: (libraries.ONNXRUNTIME, tmp_path))
    if LINUX:
        assert libraries.missing().startswith("onnxruntime_qnn has no libQnnHtp.so")
