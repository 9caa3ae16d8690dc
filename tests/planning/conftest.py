"""What-ifs here are timed for an instant: their numbers matter little, that they are there matters."""

from __future__ import annotations

import pytest

from slimseg.planning import whatif


@pytest.fixture(autouse=True)
def _quick_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whatif, "SECONDS_PER_FILE", 0.02)
