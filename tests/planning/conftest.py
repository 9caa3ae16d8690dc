"""Planning decides from times, which are the same here on every machine."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="module")
def _quick_timing(quick_timing: None) -> None:
    """For every test in this folder."""
