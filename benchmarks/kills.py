"""Kills commands at random moments, gives each of them again, and checks that it comes to its right end.

    python benchmarks/kills.py [--kills 200] [--seed 0] [--commands slim,export] [--out results/kills.json]

A small network and drawn images. Every command is first run undisturbed, for the time that it takes. A try starts it in
a folder of its own, ends it, gives it again and ends that one, too, four times in a row, each at another kind of moment
(`MOMENTS`) with SIGKILL, SIGINT, SIGTERM or SIGHUP, and then lets it run. SIGINT goes to children, too, as Ctrl-C does.
It looks at:

- the end: exit code 0 or 3 (3: a budget that is not met), and the files of the undisturbed run, each of which opens;
- what was there before, where a command writes over something: it opens at every moment in between;
- what is left: no hidden files, no temporary folders, no processes, and of those no later than seconds after a kill;
- after all but SIGKILL: one sentence, no traceback, exit code 128 + the signal's number.

Only a kill that met a living process counts. `demo`, which takes minutes, is tried where it is named in --commands.
10 to 60 seconds a kill on 2 cores that are free. Exit code 1 where a try fails; what it printed is shown.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from slimseg import load
from slimseg.runtimes.coreml import structure
from slimseg.runtimes.litert import session
from slimseg.tflite import file

SIZE = 32
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Before it has written or made anything; after it began to fill its folder, before a run's first journal entry.
MOMENTS = ("start-up", "first second", "anywhere", "anywhere")
PATIENCE_S = 1200.0
CHILDREN_S = 20.0  # to notice that their parent is dead
CARDS = ("model_card.json", "model_card.md")
RUN = ("model.tflite", "model.pt2", "result.json", "report.html", "profile_before.json", "profile_after.json")


@dataclass(frozen=True)
class Command:
    """What is typed, in a folder with `network.pt2` and `images`; what it leaves; what is there before."""

    name: str
    arguments: tuple[str, ...]
    files: tuple[str, ...]
    prepare: Callable[[Path], None] = lambda _: None
    always: tuple[str, ...] = ()  # open at every moment
    kills: int = len(MOMENTS)  # in a row


@dataclass(frozen=True)
class Kill:
    """One kill of a living process: `after_s` from its start, or from the first trace of it."""

    moment: str
    signal: str
    after_s: float
    there: tuple[str, ...]  # what was in the folder that the command fills


@dataclass
class Try:
    command: str
    number: int
    kills: list[Kill] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def slim(*more: str) -> tuple[str, ...]:
    return ("slim", "network.pt2", "--out", "run", *more)


IMAGES = ("--data", "images", "--mean", "127", "--std", "128")
EXPORT = ("export", "network.pt2", "--out", "app", "--to", "tflite,ncnn", "--head", "logits", *IMAGES)
QUANTIZE = ("quantize", "network.pt2", "--out", "int8.tflite", "--scheme", "int8", "--correct", "none", *IMAGES)
APP = ("model.tflite", "model.param", "model.bin", *CARDS)


def earlier_export(folder: Path) -> None:
    """An export that the command writes over: of another network, so that a mixture would tell."""
    app = folder / "app"
    app.mkdir()
    for name in APP:
        (app / name).write_text('{"artefacts": []}' if name == CARDS[0] else "earlier")


def earlier_file(folder: Path) -> None:
    shutil.copy(folder / "earlier.tflite", folder / "int8.tflite")


COMMANDS = (
    Command(
        "slim",
        slim("--max-size", "9kB", "--time-limit", "30s", "--max-drop", "100", *IMAGES),
        tuple(f"run/{name}" for name in (*RUN, "model_float.tflite")),
    ),
    Command("slim nothing", slim("--needs", "nothing"), tuple(f"run/{name}" for name in RUN)),
    Command(
        "slim to",
        slim("--needs", "nothing", "--to", "tflite"),
        tuple(f"run/{name}" for name in (*RUN, "export/model.tflite", *(f"export/{card}" for card in CARDS))),
    ),
    Command("export coreml", ("export", "network.pt2", "--out", "app", "--to", "coreml"), ("app/model.mlpackage",)),
    Command("export", EXPORT, tuple(f"app/{name}" for name in APP)),
    Command("export over", EXPORT, tuple(f"app/{name}" for name in APP), earlier_export),
    Command("quantize", QUANTIZE, ("int8.tflite",), earlier_file, ("int8.tflite",)),
    Command("quantize train", (*QUANTIZE, "--train", "2s"), ("int8.tflite",)),
    Command("profile", ("profile", "earlier.tflite", "--csv", "layers.csv", "--trace", "trace.json"), ("layers.csv",)),
    Command("diagnose", ("diagnose", "earlier.tflite"), ()),
    Command("evaluate", ("evaluate", "earlier.tflite", "--data", "images"), ()),
)
LONG = (Command("demo", ("demo", "--out", "run"), tuple(f"run/{name}" for name in RUN), kills=1),)


def prepare(folder: Path) -> None:
    """The network and drawn images: squares on noise."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 2, 2), nn.ReLU(), nn.Conv2d(8, 2, 1),
    )  # fmt: skip
    graph = load(nn.Sequential(*layers).eval(), (SIZE, SIZE), mean=127, std=128, name="network")
    graph.save(folder / "network.pt2")
    command = [sys.executable, "-m", "slimseg", "quantize", "network.pt2", "--scheme", "float16", "--out"]
    subprocess.run([*command, "earlier.tflite"], cwd=folder, check=True, capture_output=True)
    draw = np.random.default_rng(0)
    for number in range(10):
        split = folder / "images" / ("train" if number < 7 else "val")
        mask = np.zeros((SIZE, SIZE), np.uint8)
        top, left = draw.integers(0, SIZE - 12, 2)
        mask[top : top + 12, left : left + 12] = 1
        image = np.clip(draw.normal(90, 20, (SIZE, SIZE, 3)) + 80 * mask[..., None], 0, 255).astype(np.uint8)
        for kind, pixels in (("images", image), ("masks", mask)):
            (split / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(split / kind / f"{number}.png")


class Bench:
    """One folder for all tries, a temporary folder that only they use, and the times of undisturbed runs."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.source = folder / "source"
        self.source.mkdir()
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.place = folder / "try"
        self.seed = seed
        prepare(self.source)
        self.seconds: dict[str, tuple[float, float]] = {}  # until the first trace, and from then on

    def try_(self, command: Command, number: int) -> Try:
        """Some kills in a row, then the end."""
        done = Try(command.name, number)
        draw = random.Random(f"{self.seed} {command.name} {number}")
        if command.name not in self.seconds:
            self.seconds[command.name] = self._whole(command, done)
        self._anew(command)
        for moment in draw.sample(MOMENTS, command.kills):
            self._killed(command, moment, draw, done)
        self._ended(command, self._start(command), done)
        return done

    def _anew(self, command: Command) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.source, self.place)
        command.prepare(self.place)

    def _whole(self, command: Command, done: Try) -> tuple[float, float]:
        """The seconds of an undisturbed run, until its first trace and from then on."""
        self._anew(command)
        before, started = self._traces(), time.monotonic()
        process = self._start(command)
        self._await_trace(process, before)
        begun = time.monotonic()
        self._ended(command, process, done)
        return begun - started, time.monotonic() - begun

    def _killed(self, command: Command, moment: str, draw: random.Random, done: Try) -> None:
        number = draw.choice(SIGNALS)
        until_s, from_s = self.seconds[command.name]
        longest_s = {"start-up": until_s, "first second": min(1.0, from_s), "anywhere": from_s}[moment]
        after_s = draw.uniform(0.0, longest_s)
        own = {Path(file).parts[0] for file in command.files if "/" in file} if moment == "first second" else set()
        before = self._traces(own)
        process = self._start(command)
        if moment != "start-up":
            self._await_trace(process, before, own)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after_s)
        if process.poll() is None:
            done.kills.append(Kill(moment, number.name, after_s, self._there()))
            (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        out, told = process.communicate(timeout=PATIENCE_S)
        if process.returncode not in (0, 3, -number, 128 + number):
            done.faults.append(f"{number.name}: exit code {process.returncode}: {(told + out)[-600:]}")
        if process.returncode == 128 + number and "Stopped." not in told:
            done.faults.append(f"{number.name}: no sentence: {told[-300:]}")
        if number in HEARD and "Traceback" in told + out:
            done.faults.append(f"{number.name}: a traceback: {told[-600:]}")
        done.faults += [f"{name} does not open after the kill" for name in command.always if not self._opens(name)]
        done.faults += self._alive()
        if not whole(self.place / "app"):
            done.faults.append("the card speaks of other files than are there")

    def _ended(self, command: Command, process: subprocess.Popen[str], done: Try) -> None:
        """Waits for its end and checks all that it leaves."""
        out, told = process.communicate(timeout=PATIENCE_S)
        if process.returncode not in (0, 3):
            done.faults.append(f"given again: exit code {process.returncode}: {(told + out)[-600:]}")
        if not out.strip():
            done.faults.append("given again: it says nothing")
        done.faults += [f"{name} does not open" for name in command.files if not self._opens(name)]
        if not whole(self.place / "app"):
            done.faults.append("at the end the card speaks of other files than are there")
        hidden = [path for path in self.place.rglob(".*") if path.name != ".slimseg.json"]
        left = [*hidden, *self.place.rglob("work"), *self.temporary.iterdir()]
        done.faults += [f"left behind: {path.relative_to(self.folder)}" for path in left]
        for path in self.temporary.iterdir():
            shutil.rmtree(path, ignore_errors=True)
        done.faults += self._alive()

    def _alive(self) -> list[str]:
        """Processes of a dead command that are still there when they should have noticed."""
        until = time.monotonic() + CHILDREN_S
        while (alive := processes_with(str(self.temporary))) and time.monotonic() < until:
            time.sleep(0.05)
        return [f"a process lives on: {pid}" for pid in alive]

    def _start(self, command: Command) -> subprocess.Popen[str]:
        environment = {**os.environ, "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", "slimseg", *command.arguments],
            cwd=self.place,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C goes to a command and its children, and not to this process
            preexec_fn=heard,
        )

    def _await_trace(self, process: subprocess.Popen[str], before: dict[str, int], only: Collection[str] = ()) -> None:
        """Until the process has written something, or is at its end."""
        while process.poll() is None and self._traces(only) == before:
            time.sleep(0.002)

    def _traces(self, only: Collection[str] = ()) -> dict[str, int]:
        """When anything was made or removed in each of the folders that commands write to, or in `only` some."""
        folders = (self.temporary, self.place, *(self.place / name for name in ("run", "app", "run-scenes")))
        found = {folder.name: folder.stat().st_mtime_ns for folder in folders if folder.is_dir()}
        return {name: found[name] for name in found if not only or name in only}

    def _there(self) -> tuple[str, ...]:
        folders = (self.place / "run", self.place / "run" / "work", self.place / "app")
        return tuple(sorted(path.name for folder in folders if folder.is_dir() for path in folder.iterdir()))

    def _opens(self, name: str) -> bool:
        return opens(self.place / name)


def heard() -> None:
    """In the new process: a shell that starts this benchmark in its background has it ignore some signals."""
    for number in HEARD:
        signal.signal(number, signal.SIG_DFL)


def opens(path: Path) -> bool:
    """Whether a file is there and whole."""
    try:
        if path.suffix == ".mlpackage":
            return structure.check(path).size_bytes > 0
        if path.suffix == ".json":
            return isinstance(json.loads(path.read_text()), dict)
        if path.suffix == ".tflite":
            value = np.zeros(file.read(path).inputs[0].shape, np.float32)
            outputs = session.run(str(path), value)
            return bool(np.isfinite(np.asarray(outputs, np.float64)).all())
        return load(path) is not None if path.suffix == ".pt2" else path.stat().st_size > 0
    except Exception as error:
        print(f"  {path.name}: {error}")
        return False


def whole(app: Path) -> bool:
    """Whether all files are of one export, where there is a card."""
    if not (app / CARDS[0]).is_file():
        return True
    earlier = {(app / name).read_bytes() in (b"earlier", b'{"artefacts": []}') for name in APP if (app / name).exists()}
    return len(earlier) == 1


def processes_with(text: str) -> list[int]:
    """Running processes of this user that have a text in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="at least so many, over all commands in turn")
    parser.add_argument("--first", type=int, default=0, help="number of the first try: to go on, or to repeat one")
    parser.add_argument("--seed", type=int, default=0)
    usual, long = (", ".join(each.name for each in commands) for commands in (COMMANDS, LONG))
    parser.add_argument("--commands", help=f"some of: {usual}; and, tried only where they are named here: {long}")
    parser.add_argument("--out", type=Path, help="write every try as JSON, too")
    arguments = parser.parse_args()
    names = arguments.commands.split(",") if arguments.commands else [each.name for each in COMMANDS]
    commands = [each for each in (*COMMANDS, *LONG) if each.name in names]
    if unknown := set(names) - {each.name for each in commands}:
        parser.error(f"no such command: {', '.join(sorted(unknown))}")
    tries: list[Try] = []
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        bench = Bench(Path(folder), arguments.seed)
        number = arguments.first
        while sum(len(each.kills) for each in tries) < arguments.kills:
            tries.append(bench.try_(commands[number % len(commands)], number // len(commands)))
            print(f"{number} {told(tries[-1])}", flush=True)
            if arguments.out:
                arguments.out.write_text(json.dumps([asdict(each) for each in tries], indent=1) + "\n")
            number += 1
    for name in names:
        own = [each for each in tries if each.command == name]
        print(f"{name}: {sum(len(each.kills) for each in own)} kills, {sum(bool(each.faults) for each in own)} failed")
    failed = sum(bool(each.faults) for each in tries)
    print(f"{sum(len(each.kills) for each in tries)} kills in {len(tries)} tries, of which {failed} failed")
    sys.exit(bool(failed))


def told(done: Try) -> str:
    """One line."""
    kills = (f"{each.signal} {each.after_s:.2f} s into {each.moment}" for each in done.kills)
    return f"{done.command}: {', '.join(kills)}: {'; '.join(done.faults) or 'ok'}"


if __name__ == "__main__":
    main()
