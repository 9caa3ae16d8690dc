"""A process that tries mutants: `format:number` in, a line of JSON out, until its input ends.

python -m fuzzing.worker FOLDER SEED HOW       HOW is "load" or "command"
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

import torch

from fuzzing import commands
from fuzzing.trials import Mutant, tried


def main() -> None:
    folder, seed, how = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever is printed goes the other way
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        name, _, number = line.strip().partition(":")
        mutant = Mutant(name, int(number), seed)
        opens = commands.opens(mutant, folder) if how == "command" else None
        print(json.dumps(asdict(tried(mutant, folder, opens))), file=out, flush=True)


if __name__ == "__main__":
    main()
