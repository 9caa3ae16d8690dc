"""Ctrl-C: one sentence, the usual exit code, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from slimseg.frontends import load
from slimseg.runtimes.litert.writing import writer
from slimseg.stopping import Stopped, keeping, listening

pytestmark = pytest.mark.skipif(os.name != "posix", reason="no signals as here")

ENDLESS = """
import sys, time
from slimseg.stopping import keeping, listening
with listening(), keeping(lambda: "All is well.") :
    try:
        print("working", flush=True)
        while True:
            time.sleep(0.01)
    finally:
        while len(sys.argv) > 1:  # does not want to end
            print("cleaning up", flush=True)
            time.sleep(0.01)
"""


def interruptible() -> None:
    """In the new process: a shell that starts jobs in its background has them ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def begun(*arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_is_one_sentence(number: signal.Signals, code: int) -> None:
    process = begun()
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (code, "Stopped. All is well.\n")


def test_a_second_signal_ends_at_once() -> None:
    process = begun("stubborn")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "cleaning up\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT


def test_everyone_who_keeps_something_is_asked_innermost_first(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with listening(), keeping(lambda: "The run is finished."), keeping(lambda: "app is as it was."):
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left:
        work()
    assert left.value.code == 143
    assert capsys.readouterr().err == "Stopped. app is as it was. The run is finished.\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listening():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_keyboard_interrupt_of_a_notebook_says_what_is_kept() -> None:
    def work() -> None:
        with keeping(lambda: "run keeps the plan."):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert getattr(caught.value, "__notes__", None) == ["run keeps the plan."]
    assert not isinstance(Stopped(2), KeyboardInterrupt)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "network.tflite"  # a `.pt2` takes four seconds more to open
    layers = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 2, 2)
    torch.manual_seed(0)
    writer.write(load(nn.Sequential(*layers).eval(), (32, 32), name="network"), path)
    return path


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_export_that_is_stopped_runs_again(source: Path, tmp_path: Path, number: signal.Signals) -> None:
    """As soon as it has begun to write; what it leaves is its own folder, or nothing at all."""
    out, temporary = tmp_path / "app", tmp_path / "temporary"
    temporary.mkdir()
    command = [
        sys.executable,
        "-m",
        "slimseg",
        "export",
        str(source),
        "--to",
        "tflite",
        "--head",
        "logits",
        "--out",
        str(out),
    ]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=interruptible)
    while not list(out.glob(".slimseg/new/*")):
        assert process.poll() is None, "it ended before it wrote anything"
        time.sleep(0.002)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert told.splitlines()[-1] == f"Stopped. Nothing was written to {out}: the same command starts over."
        assert not out.exists()
        assert not list(temporary.iterdir())
        return  # as if it had never been started
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} >= {"model.tflite", "model_card.md", "model_card.json"}
    assert not list(out.glob(".*"))
    assert not list(temporary.iterdir())
