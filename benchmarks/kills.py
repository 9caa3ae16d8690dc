"""Kills commands at random moments, gives each of them again, and checks that it comes to its right end.

    python benchmarks/kills.py [--kills 200] [--seed 0] [--commands slim,export] [--out results/kills.json]

A small network and drawn images. Every command is first run undisturbed, for the time that it takes. A try starts it in
a folder of its own, sends it SIGKILL, SIGINT or SIGTERM at a moment drawn from that time, gives it again (and every
fourth time kills that one, too) and looks at:

- the end: exit code 0 or 3 (3: a budget that is not met), and the files of the undisturbed run, each of which opens;
- what was there before, where a command writes over something: it opens at every moment in between;
- what is left: no hidden files, no temporary folders, no processes;
- after SIGINT or SIGTERM: one sentence, no traceback, exit code 130 or 143.

About 8 seconds a try on an idle machine of 2 cores. Exit code 1 where a try fails; what it printed is shown then.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from slimseg import load
from slimseg.frontends import archive
from slimseg.runtimes.litert import file, session

SIZE = 32
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
PATIENCE_S = 300.0
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


@dataclass
class Try:
    command: str
    number: int
    signal: str = ""
    after_s: float = 0.0
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
    Command("export", EXPORT, tuple(f"app/{name}" for name in APP)),
    Command("export over", EXPORT, tuple(f"app/{name}" for name in APP), earlier_export),
    Command("quantize", QUANTIZE, ("int8.tflite",), earlier_file, ("int8.tflite",)),
    Command("quantize train", (*QUANTIZE, "--train", "2s"), ("int8.tflite",)),
    Command("profile", ("profile", "earlier.tflite", "--csv", "layers.csv", "--trace", "trace.json"), ("layers.csv",)),
)


def prepare(folder: Path) -> None:
    """The network and drawn images: squares on noise."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 2, 2), nn.ReLU(), nn.Conv2d(8, 2, 1),
    )  # fmt: skip
    graph = load(nn.Sequential(*layers).eval(), (SIZE, SIZE), mean=127, std=128, name="network")
    archive.write_graph(graph, folder / "network.pt2")
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
        self.seed = seed
        prepare(self.source)
        self.seconds: dict[str, float] = {}

    def try_(self, command: Command, number: int) -> Try:
        """One kill, or two."""
        done = Try(command.name, number)
        draw = random.Random(f"{self.seed} {command.name} {number}")
        place = Path(shutil.copytree(self.source, self.folder / "try"))
        try:
            command.prepare(place)
            if command.name not in self.seconds:
                self.seconds[command.name] = self._undisturbed(command, place, done)
                shutil.rmtree(place)
                shutil.copytree(self.source, place)
                command.prepare(place)
            for _ in range(2 if number % 4 == 3 else 1):
                self._killed(command, place, draw, done)
            self._undisturbed(command, place, done)
            return done
        finally:
            shutil.rmtree(place)

    def _killed(self, command: Command, place: Path, draw: random.Random, done: Try) -> None:
        number = draw.choice(SIGNALS)
        after_s = draw.uniform(0.02, 1.0) * self.seconds[command.name]
        done.signal, done.after_s = number.name, after_s
        process = self._start(command, place)
        try:
            process.wait(after_s)
            out, told = process.communicate()
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            out, told = process.communicate(timeout=PATIENCE_S)
        if process.returncode == 128 + number and "Stopped." not in told:
            done.faults.append(f"{number.name}: no sentence: {told[-300:]}")
        if number != signal.SIGKILL and "Traceback" in told + out:
            done.faults.append(f"{number.name}: a traceback: {told[-600:]}")
        done.faults += [f"{name} does not open after the kill" for name in command.always if not opens(place / name)]
        if not whole(place / "app"):
            done.faults.append("the card speaks of other files than are there")

    def _undisturbed(self, command: Command, place: Path, done: Try) -> float:
        """Runs it to its end and checks all that it leaves; gives the seconds that it took."""
        started = time.monotonic()
        process = self._start(command, place)
        out, told = process.communicate(timeout=PATIENCE_S)
        if process.returncode not in (0, 3):
            done.faults.append(f"given again: exit code {process.returncode}: {(told + out)[-600:]}")
        done.faults += [f"{name} does not open" for name in command.files if not opens(place / name)]
        if not whole(place / "app"):
            done.faults.append("at the end the card speaks of other files than are there")
        hidden = [path for path in place.rglob(".*") if path.name != ".slimseg.json"]
        left = [*hidden, *place.rglob("work"), *self.temporary.iterdir()]
        done.faults += [f"left behind: {path.relative_to(self.folder)}" for path in left]
        for path in self.temporary.iterdir():
            shutil.rmtree(path, ignore_errors=True)
        done.faults += [f"a process lives on: {pid}" for pid in processes_with(str(self.temporary))]
        return time.monotonic() - started

    def _start(self, command: Command, place: Path) -> subprocess.Popen[str]:
        environment = {**os.environ, "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"}
        arguments = [sys.executable, "-m", "slimseg", *command.arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(arguments, cwd=place, stdout=pipe, stderr=pipe, text=True, env=environment)


def opens(path: Path) -> bool:
    """Whether a file is there and whole."""
    try:
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
    parser.add_argument("--kills", type=int, default=200, help="tries, over all commands in turn")
    parser.add_argument("--first", type=int, default=0, help="number of the first try: to go on, or to repeat one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", help=f"some of: {', '.join(each.name for each in COMMANDS)}")
    parser.add_argument("--out", type=Path, help="write every try as JSON, too")
    arguments = parser.parse_args()
    names = arguments.commands.split(",") if arguments.commands else [each.name for each in COMMANDS]
    commands = [each for each in COMMANDS if each.name in names]
    tries = []
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        bench = Bench(Path(folder), arguments.seed)
        for number in range(arguments.first, arguments.first + arguments.kills):
            done = bench.try_(commands[number % len(commands)], number // len(commands))
            tries.append(done)
            verdict = "; ".join(done.faults) or "ok"
            print(f"{number} {done.command}: {done.signal} after {done.after_s:.2f} s: {verdict}", flush=True)
    failed = [each for each in tries if each.faults]
    for name in names:
        own = [each for each in tries if each.command == name]
        print(f"{name}: {len(own)} killed, {sum(bool(each.faults) for each in own)} failed")
    print(f"{len(tries)} tries, {len(failed)} failed")
    if arguments.out:
        arguments.out.write_text(json.dumps([asdict(each) for each in tries], indent=1) + "\n")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
