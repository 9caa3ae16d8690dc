"""The child process: answers, failures told in one sentence, and a fresh start after a crash."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slimseg.disk import scratch
from slimseg.errors import ModelError, RuntimeFailure
from slimseg.runtimes.child import MOST_MEMORY_BYTES, Child


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with Child() as running:
        yield running


def test_runs_in_another_process(child: Child) -> None:
    pid = child.call("os:getpid")
    assert pid == child.pid != os.getpid()
    assert child.call("os:getpid") == pid


def test_our_errors_come_back_as_themselves(child: Child) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.tflite cannot be opened"):
        child.call("slimseg.tflite.file:read", "nowhere.tflite")


def test_other_errors_become_one_sentence(child: Child) -> None:
    with pytest.raises(RuntimeFailure, match=r"^net\.tflite: .*ZeroDivisionError"):
        child.call("operator:truediv", 1, 0, about="net.tflite")
    with pytest.raises(RuntimeFailure, match="ModuleNotFoundError"):
        child.call("no_such_module:function")
    with pytest.raises(RuntimeFailure, match="pickle"):
        child.call("threading:Lock")


def test_a_crash_is_a_failure_and_the_next_call_works(child: Child) -> None:
    with pytest.raises(RuntimeFailure, match=r"net\.tflite: the native runtime crashed \(SIGABRT\)"):
        child.call("os:abort", about="net.tflite")
    assert child.call("operator:add", 1, 2) == 3


def test_a_timeout_stops_the_child(child: Child) -> None:
    child.call("operator:add", 1, 2)
    first = child.pid
    with pytest.raises(RuntimeFailure, match=r"did not answer within 0\.5 s"):
        child.call("time:sleep", 3600, timeout_s=0.5)
    assert child.call("operator:add", 1, 2, timeout_s=600) == 3
    assert child.pid != first


def take_memory(count: int) -> str:
    bytearray(count)
    return "taken"


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_a_child_does_not_take_the_whole_machine(child: Child) -> None:
    assert child.call("test_child:take_memory", 1 << 20) == "taken"
    with pytest.raises(RuntimeFailure, match="MemoryError"):
        child.call("test_child:take_memory", MOST_MEMORY_BYTES + 1)


def test_native_output_does_not_disturb_the_protocol(child: Child) -> None:
    assert child.call("os:write", 1, b"on standard output\n") == 19
    assert child.call("os:write", 2, b"on standard error\n") == 18
    assert child.call("operator:add", 1, 2) == 3


def test_a_stack_is_quoted_from_its_first_lines(child: Child) -> None:
    """They name the error and the newest calls."""
    with pytest.raises(RuntimeFailure) as failed:
        child.call("test_child:die_with_a_stack", 40)
    said = str(failed.value)
    assert "; it printed: Fatal Python error: Segmentation fault" in said
    assert "(most recent call first): / File" in said
    assert "in deeper" in said
    assert "_run_module_as_main" not in said
    assert said.endswith("...")
    assert len(said) < 600


def test_a_log_is_quoted_up_to_its_last_lines_and_the_stack_behind_it(child: Child) -> None:
    with pytest.raises(RuntimeFailure) as failed:
        child.call("test_child:log_and_die_with_a_stack")
    said = str(failed.value)
    assert "step 499 / free(): invalid pointer / Fatal Python error: Segmentation fault" in said
    assert "step 400" not in said
    assert len(said) < 1000


def test_a_log_alone_is_quoted_up_to_its_last_lines(child: Child) -> None:
    with pytest.raises(RuntimeFailure, match=r"; it printed: \.\.\..*step 499 / free\(\): invalid pointer$") as failed:
        child.call("test_child:log_and_die")
    assert len(str(failed.value)) < 600


def die_with_a_stack(depth: int) -> None:
    faulthandler.enable()
    deeper(depth)


def deeper(depth: int) -> None:
    if depth:
        deeper(depth - 1)
    os.kill(os.getpid(), signal.SIGSEGV)


def write_log() -> None:
    """As native code does: many lines, the last of which says what is wrong."""
    for step in range(500):
        os.write(2, f"step {step}\n".encode())
    os.write(2, b"free(): invalid pointer\n")


def log_and_die() -> None:
    write_log()
    os.kill(os.getpid(), signal.SIGABRT)


def log_and_die_with_a_stack() -> None:
    write_log()
    die_with_a_stack(40)


def test_closing_ends_the_process() -> None:
    with Child() as child:
        pid = child.call("os:getpid")
    assert child.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


DYING = """
from slimseg.runtimes import child
print(child.call("os:getpid"), child.call("tempfile:gettempdir"), flush=True)
child.call("test_child:hold_the_lock", 10_000)
"""


def hold_the_lock(seconds: int) -> None:
    """A native call that lets no other Python code of its process run."""
    ctypes.PyDLL(None).sleep(seconds)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no way to wait for a process that is not our child")
def test_the_child_dies_with_its_parent_in_the_middle_of_a_native_call() -> None:
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    parent = subprocess.Popen(
        [sys.executable, "-c", DYING], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert parent.stdout is not None
    pid, folder = parent.stdout.readline().split()
    child = os.pidfd_open(int(pid))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert select.select([child], [], [], 60)[0], "the child lives on"
    os.close(child)
    assert Path(folder).is_dir()
    scratch.clear()
    assert not Path(folder).exists()


def test_the_runtime_layer_does_not_import_torch() -> None:
    code = (
        "import sys, slimseg.runtimes.benchmark, slimseg.runtimes.litert.profiling.profiler,"
        " slimseg.runtimes.litert.quantising.quantizer; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_script_without_main_guard_can_use_it(tmp_path: object) -> None:
    code = "from slimseg.runtimes import child; print(child.call('operator:add', 1, 2))"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True, cwd=str(tmp_path)
    )
    assert result.stdout == "3\n"
    assert result.stderr == ""
