"""The files of tests that take longest come first: one that began last would keep a single worker busy at the end.

pytest-xdist begins with the files of most tests (`--no-loadscope-reorder` in pyproject.toml turns this off), which says
little about time: one run of `slim` takes as long as a thousand small tests.
"""

from __future__ import annotations

import pytest

LONGEST = (
    "test_slim.py", "test_cli.py", "test_keras.py", "test_coreml_writer.py", "test_contract.py", "test_fuzz.py",
    "test_bombs.py", "test_planner.py", "test_identities.py", "test_same_graph.py", "test_channel_groups.py",
    "test_keras_hostile.py", "test_own_runtime.py", "test_torch_operators.py", "test_architecture.py",
    "test_spelling.py", "test_quantize.py", "test_cli_odd.py", "test_litert_profiler.py", "test_recover.py",
    "test_models.py", "test_cli_export.py", "test_coreml_lowerings.py", "test_stopping.py", "test_training_loop.py",
    "test_litert_profile_zoo.py", "test_on_ncnn.py", "test_torch.py", "test_diagnose.py", "test_writer.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))
