"""What the C library's allocator costs a step of training on a CPU, and what is left of it with `memory.keep_freed`.

    python benchmarks/allocation.py [--rounds 3]

Each way in processes of its own, taking turns; processor time of one thread. Writes benchmarks/results/allocation.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

WAYS = ("as it is", "freed memory kept")
STEPS = 6


def steps(way: str) -> tuple[float, float]:
    """Seconds of (user, system) time that some steps of training take in this process."""
    import torch

    from slimseg.models import build
    from slimseg.training.memory import keep_freed

    torch.set_num_threads(1)
    if way == WAYS[1]:
        keep_freed()
    module = build(11, (256, 320)).module.to(memory_format=torch.channels_last)
    images = torch.randn(8, 3, 256, 320).to(memory_format=torch.channels_last)

    def step() -> None:
        module.zero_grad(set_to_none=True)
        module(images).square().mean().backward()

    step()
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(STEPS):
        step()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(steps(options.way)))
        return
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way in WAYS:
            command = [sys.executable, __file__, "--way", way]
            found[way].append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    medians = {
        way: [statistics.median(column) for column in zip(*rounds, strict=True)] for way, rounds in found.items()
    }
    for way, (user_s, system_s) in medians.items():
        print(f"{way:20s} user {user_s / STEPS:.3f} s, system {system_s / STEPS:.3f} s a step")
    plain, kept = (sum(medians[way]) for way in WAYS)
    print(f"{plain / kept:.2f}x faster")
    result = {"steps": STEPS, "user_and_system_s": medians, "speedup": plain / kept}
    target = Path(__file__).parent / "results" / "allocation.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
