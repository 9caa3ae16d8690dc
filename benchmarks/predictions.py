"""What each edit was predicted to save, against what it saved in the deployed file, over several networks.

    python benchmarks/predictions.py RUN [RUN ...]

RUN is the folder of a finished `slimseg slim` or `slimseg demo`. "Alone" is the what-if of the part, before and after;
"in place" is the prediction that the run ended with, before anything was trained: every edit on top of those before it,
timed in the whole network. Edits that take or save less than a hundredth of the network's time are counted apart: that
is what a stopwatch on this machine can tell. Writes benchmarks/results/predictions.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
WITHIN = 0.10
TELLABLE = 0.01  # of the latency before the first edit


def edits(run: Path) -> list[dict[str, Any]]:
    """The edits of one run, with its network's name."""
    result = json.loads((run / "result.json").read_text())
    start = (result["plain_int8"] or result["baseline"])["latency_ms"]
    return [
        {
            "network": result["model"],
            "technique": edit["technique"],
            "layer": edit["layers"][0],
            "alone_ms": edit["alone_saving_ms"],
            "in_place_ms": edit["predicted_saving_ms"],
            "realised_ms": edit["realised_saving_ms"],
            "tellable": abs(edit["realised_saving_ms"]) >= TELLABLE * start
            or abs(edit["predicted_saving_ms"]) >= TELLABLE * start,
        }
        for edit in result["edits"]
    ]


def within(found: Sequence[dict[str, Any]], prediction: str) -> tuple[int, int]:
    """How many predictions are within a tenth of what was realised, of how many."""
    known = [each for each in found if each[prediction] is not None]
    good = [each for each in known if abs(each[prediction] - each["realised_ms"]) <= WITHIN * abs(each["realised_ms"])]
    return len(good), len(known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    found = [each for run in parser.parse_args().runs for each in edits(run)]
    target = ROOT / "benchmarks" / "results" / "predictions.json"
    target.write_text(json.dumps(found, indent=1) + "\n")
    table = Table("network", "technique", "layer", "alone ms", "in place ms", "realised ms", "off")
    for each in found:
        off = each["in_place_ms"] / each["realised_ms"] - 1 if each["realised_ms"] else 0.0
        alone = "" if each["alone_ms"] is None else f"{each['alone_ms']:.3f}"
        table.add_row(
            each["network"], each["technique"], each["layer"], alone, f"{each['in_place_ms']:.3f}",
            f"{each['realised_ms']:.3f}", f"{off:+.0%}" if each["tellable"] else "(too little to tell)",
        )  # fmt: skip
    console = Console()
    console.print(table)
    tellable = [each for each in found if each["tellable"]]
    for name, chosen in (("all edits", found), ("edits of at least 1% of the time", tellable)):
        for prediction in ("alone_ms", "in_place_ms"):
            good, count = within(chosen, prediction)
            console.print(f"{name}, {prediction}: {good} of {count} within {WITHIN:.0%}")


if __name__ == "__main__":
    main()
