"""Every random number of a test follows from the test's own name: alone, in any order, on any worker, it is the same.

pytest is asked to seed `random`, numpy and torch at three moments: before a module is imported (parameters are drawn
there), before a fixture is made (of whatever scope, by whichever test comes first), and before a test runs.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
import torch

# Without a GPU `torch.manual_seed` is slow: it formats the call stack once for each kind of device there might be.
_seed_torch = torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed


def seed(name: str) -> None:
    """Seed Python's, numpy's and torch's global generators from a name."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    random.seed(number)
    np.random.seed(number)
    _seed_torch(number)


@pytest.hookimpl
def pytest_collectstart(collector: pytest.Collector) -> None:
    seed(collector.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest) -> None:
    where = request.node.nodeid if fixturedef.scope == "function" else fixturedef.baseid
    seed(f"{where} {fixturedef.argname} {getattr(request, 'param_index', 0)}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    seed(item.nodeid)
