"""prisma-net.tflite made faster with photographs alone: no label is seen until the finished file is judged.

    python benchmarks/portraits.py [--time-limit 20m] [--min-speedup 4] [--out runs/portraits]

`slimseg slim` gets the images of `../shared/portraits` without their masks. The table gives the person's IoU on the 50
validation masks for the file as it came, for its plain int8 form and for slimseg's. Writes
benchmarks/results/portraits.json.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

from camvid import images_alone
from rich.console import Console
from rich.table import Table

import slimseg
from slimseg.planning.choosing.budget import Budget, parse_time
from slimseg.progress import Terminal

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "portraits")
    parser.add_argument("--time-limit", default="20m")
    parser.add_argument("--min-speedup", type=float, default=4.0)
    parser.add_argument("--max-drop", type=float, default=2.0, help="Percent of pixels that change class.")
    parser.add_argument("--run", type=Path, help="judge an existing run again instead of making one")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    data = SHARED / "portraits"
    run = options.run or options.out
    if not options.run:
        graph = slimseg.load(SHARED / "models" / "prisma-net.tflite", mean=0, std=255)
        budget = Budget(
            min_speedup=options.min_speedup,
            max_drop=options.max_drop,
            time_limit_s=parse_time(options.time_limit),
            needs="images",
        )
        given = images_alone(data, ROOT / "runs" / "portraits_alone")
        slimseg.slim(graph, images=given, out=run, budget=budget, progress=Terminal(Console(stderr=True)))
    result = json.loads((run / "result.json").read_text())
    rows = []
    for key, name in (("baseline", "as it came"), ("plain_int8", "its plain int8"), ("result", "slimseg slim")):
        summary = result[key]
        evaluation = slimseg.evaluate(run / summary["file"], images=data)
        iou = next(value for label, value in evaluation.class_iou.items() if label not in ("class 0", "background"))
        rows.append(
            {
                "name": name,
                "latency_ms": summary["latency_ms"],
                "end_to_end_ms": summary["end_to_end_ms"],
                "size_bytes": summary["size_bytes"],
                "person_iou": iou,
                "agreement": summary["agreement"],
            }
        )
    found = {"rows": rows, "speedup": result["speedup"], "seconds": result["seconds"], "edits": result["edits"]}
    (ROOT / "benchmarks" / "results" / "portraits.json").write_text(json.dumps(found, indent=1) + "\n")
    table = Table("file", "ms", "end to end ms", "MB", "person IoU", "pixels as before")
    for row in rows:
        table.add_row(
            str(row["name"]), f"{row['latency_ms']:.2f}", f"{row['end_to_end_ms']:.2f}",
            f"{row['size_bytes'] / 1e6:.2f}", f"{row['person_iou']:.2f}", f"{row['agreement']:.2f}%",
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(f"{result['speedup']:.2f}x in {result['seconds']:.0f} s")


if __name__ == "__main__":
    main()
