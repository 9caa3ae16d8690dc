"""Freed memory stays with the process, so that the next step does not fault it in again."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from slimseg.training.memory import keep_freed
if sys.argv[1] == "keep" and not keep_freed():
    sys.exit(3)
def step():
    return sum(float((torch.ones(8 << 20) + 1)[0]) for _ in range(4))
torch.set_num_threads(1)
step(), step(), step()  # until the heap has its size
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step(), step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    run = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=False)
    if run.returncode == 3:
        pytest.skip("the C library is not glibc")
    return int(run.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_steps_after_the_first_fault_no_pages_in():
    assert faults("keep") < 0.1 * faults("leave")
