"""What-ifs here are timed for an instant: their numbers matter little, that they are there matters."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="module")
def _quick_timing(quick_timing: None) -> None:
    """For every test in this folder."""
