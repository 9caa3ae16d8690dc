"""One mutant, made from its number and opened: what became of it, and what it took."""

from __future__ import annotations

import resource
import time
import traceback
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fuzzing.formats import FORMATS
from fuzzing.values import Random, chosen
from slimseg.errors import SlimsegError
from slimseg.runtimes.peak_memory import PeakMemory

LONGEST_SENTENCE = 2000  # characters


@dataclass(frozen=True)
class Mutant:
    """`format:number` with the campaign's seed tells which; the same for ever, as long as seeds and mutators are."""

    format: str
    number: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.format}:{self.number}"

    @property
    def random(self) -> Random:
        return np.random.default_rng([self.seed, zlib.crc32(self.format.encode()), self.number])

    def write(self, folder: Path) -> Path:
        """Into `folder`, where a folder `seeds` lies."""
        random = self.random
        files = sorted(path for path in (folder / "seeds" / self.format).iterdir() if path.is_file())
        source = chosen(random, files)
        alike = [path.read_bytes() for path in files if path.suffix == source.suffix]
        data = FORMATS[self.format].mutant(random, source.read_bytes(), alike)
        path = folder / f"mutant{source.suffix}"
        path.write_bytes(data)
        for beside in files:  # an ncnn network is two files
            if beside.stem == source.stem and beside.suffix in (".bin", ".param") and beside != source:
                path.with_suffix(beside.suffix).write_bytes(beside.read_bytes())
                path = path.with_suffix(".param")
        return path


@dataclass(frozen=True)
class Outcome:
    """`kind` is "opened", "refused", "foreign" (an error that is none of slimseg's) or "unreadable" (its sentence)."""

    mutant: str
    kind: str
    said: str
    cpu_s: float
    memory_bytes: int  # at the peak, beyond what the process held before
    child_bytes: int  # the largest that any child process of this one has been so far


def tried(mutant: Mutant, folder: Path, opens: Callable[[Path], None] | None = None) -> Outcome:
    """Write the mutant and open it; `opens` by default as `slimseg.load` does, with one run of the network."""
    path = mutant.write(folder)
    memory, start = PeakMemory(), time.process_time()
    kind, said = _became(path, opens or FORMATS[mutant.format].opens)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return Outcome(mutant.name, kind, said, time.process_time() - start, memory.bytes(), children)


def _became(path: Path, opens: Callable[[Path], None]) -> tuple[str, str]:
    try:
        opens(path)
    except SlimsegError as error:
        said = str(error)
        readable = said.isprintable() and 0 < len(said) < LONGEST_SENTENCE
        return "refused" if readable else "unreadable", said[:300].encode("ascii", "backslashreplace").decode()
    except BaseException as error:  # whatever it is, it must not end the campaign
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
        return "foreign", said[:300].encode("ascii", "backslashreplace").decode()
    return "opened", ""
