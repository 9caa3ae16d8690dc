"""Mutated files of every format, opened and run once: nothing may crash, hang, or take memory, and errors are ours.

    python benchmarks/fuzz.py --count 20000 --seed 0 [--format tflite] [--how command] [--seconds 170] --out runs/fuzz
    python benchmarks/fuzz.py --replay tflite:123 --seed 0
    python benchmarks/fuzz.py --audit

Mutants are numbered; a number and the seed always make the same file. `--out` keeps a line of JSON for each mutant, and
the same command goes on where it stopped. `--replay` tries one mutant in this process and leaves its file in
runs/fuzz. `--audit` loads 200 hostile files and lists what Python imports, opens, starts and unpickles meanwhile.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from fuzzing import audit, herd, seeds
from fuzzing.formats import FORMATS
from fuzzing.trials import Mutant, tried

GIGABYTE = 1 << 30
COMMAND_CPU_S = 60.0  # a command writes, times and judges files


def numbered(count: int, only: str | None) -> Iterator[str]:
    """Names of mutants, formats by their shares, so that any stretch holds all of them."""
    shares = {name: each.share for name, each in FORMATS.items() if only in (None, name)}
    given: Counter[str] = Counter()
    for number in range(count):
        name = max(shares, key=lambda each: shares[each] * (number + 1) - given[each] * sum(shares.values()))
        yield f"{name}:{given[name]}"
        given[name] += 1


def kind(outcome: dict[str, Any]) -> str:
    memory = max(outcome["memory_bytes"], outcome["child_bytes"])
    return "over 1 GB" if memory > GIGABYTE and outcome["kind"] in ("opened", "refused") else str(outcome["kind"])


def table(outcomes: Sequence[dict[str, Any]]) -> str:
    """By format: how many mutants, and what became of them."""
    kinds = ("opened", "refused", "signal", "hang", "over 1 GB", "foreign", "unreadable")
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for each in outcomes:
        for name in (each["mutant"].partition(":")[0], "all"):
            counts[name][kind(each)] += 1
    lines = ["| format | mutants | " + " | ".join(kinds) + " |", "|---|" + "---:|" * (len(kinds) + 1)]
    for name, found in sorted(counts.items(), key=lambda item: item[0] == "all"):
        lines.append(f"| {name} | {found.total()} | " + " | ".join(str(found[each]) for each in kinds) + " |")
    return "\n".join(lines)


def run(options: argparse.Namespace) -> int:
    """The campaign; 1 where something was found."""
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    log = out / f"{options.how}_{options.seed}.jsonl"
    outcomes = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {each["mutant"] for each in outcomes}
    names = (name for name in numbered(options.count, options.format) if name not in done)
    end = time.monotonic() + options.seconds
    cpu_s = COMMAND_CPU_S if options.how == "command" else herd.CPU_S
    with tempfile.TemporaryDirectory(prefix="slimseg-fuzz-") as scratch, log.open("a") as stream:
        seeds.write_all(Path(scratch) / "seeds")
        timely = itertools.takewhile(lambda _: time.monotonic() < end, names)
        for outcome in herd.campaign(timely, Path(scratch), options.seed, options.how, cpu_s):
            outcomes.append(outcome)
            print(json.dumps(outcome), file=stream, flush=True)
            if kind(outcome) not in ("opened", "refused"):
                print(f"{outcome['mutant']}: {kind(outcome)}: {outcome['said']}", flush=True)
    print(table(outcomes))
    return int(any(kind(each) not in ("opened", "refused") for each in outcomes))


def replay(options: argparse.Namespace) -> int:
    """One mutant in this process."""
    name, _, number = options.replay.partition(":")
    options.out.mkdir(parents=True, exist_ok=True)
    if not (options.out / "seeds").exists():
        seeds.write_all(options.out / "seeds")
    outcome = tried(Mutant(name, int(number), options.seed), options.out)
    print(outcome)
    return int(outcome.kind not in ("opened", "refused"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=FORMATS)
    parser.add_argument("--how", choices=("load", "command"), default="load")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many; run again to go on")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"))
    parser.add_argument("--replay", metavar="FORMAT:NUMBER")
    parser.add_argument("--audit", action="store_true")
    options = parser.parse_args()
    if options.audit:
        return audit.show(200)
    return replay(options) if options.replay else run(options)


if __name__ == "__main__":
    sys.exit(main())
