"""Tests of the ncnn runtime need its package, an optional extra."""

from __future__ import annotations

import pytest

from slimseg.runtimes.ncnn.package import INSTALL, available


@pytest.fixture(autouse=True)
def ncnn_installed() -> None:
    if not available():
        pytest.skip(f"ncnn is not installed: {INSTALL}")
