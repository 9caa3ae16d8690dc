"""Files of a few kilobytes that ask for gigabytes or hours: one sentence, and memory in proportion to the file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras_bombs
import onnx_bombs
import pytest
import tflite_bombs

BOMBS = {".tflite": tflite_bombs.BOMBS, ".onnx": onnx_bombs.BOMBS, ".h5": keras_bombs.BOMBS}
MOST_MEGABYTES = 700  # on top of what Python and torch take
OPENED = {
    "alike_names", "tiles", "one name for all", "long names", "long values", "many parts", "layers_of_one_class",
}  # fmt: skip
RUN = """
import json, resource, sys
import slimseg
from slimseg.errors import ModelError
import slimseg.frontends.tflite, slimseg.frontends.onnx, slimseg.frontends.keras.network
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
for path in sys.argv[1:]:
    try:
        slimseg.load(path)
        print(json.dumps([path, "opened"]))
    except ModelError as error:
        print(json.dumps([path, str(error)]))
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted by Linux's own means")
def test_bombs_are_refused_in_bounded_memory(tmp_path: Path):
    """All in one process: importing torch takes longer than opening a dozen of them."""
    paths = {}
    for suffix, bombs in BOMBS.items():
        for name, make in bombs.items():
            path = tmp_path / f"{name.replace(' ', '_')}{suffix}"
            make(path)
            paths[str(path)] = name
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN, *paths], capture_output=True, text=True, timeout=600
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    *lines, megabytes = ran.stdout.splitlines()
    for path, said in map(json.loads, lines):
        assert (said == "opened") == (paths[path] in OPENED), (path, said)
        assert said == "opened" or path in said
        assert said.count(path) <= 1
        assert said.isprintable()
    assert len(lines) == len(paths)
    assert int(megabytes) < MOST_MEGABYTES
