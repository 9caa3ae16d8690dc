"""coremltools is spared the objects of all other tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def _frozen() -> Iterator[None]:
    """Every conversion ends in a full garbage collection, two thirds of its time where torch and pytest are loaded."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
