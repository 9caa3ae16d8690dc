"""Every claim of the article, measured on LiteRT: float32 and int8, over a range of layer shapes, a plot each.

    python benchmarks/article.py [--quick] [--only NAME ...]

Prints a table and writes benchmarks/results/article.json, benchmarks/results/article/<claim>.svg and the table of
benchmarks/README.md. A case's two networks are timed in turns in one run, so its ratio is of the same seconds; times
of different cases are never compared. `--quick` spends less time on each, skips the accuracy and writes to
runs/article. Rows of whole networks need the folder `shared` beside the checkout.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import article_networks as networks
import article_plot as plot
import numpy as np
import torch
from article_claims import FASTER, Case, Claim, conv, layer_claims, net
from rich.console import Console
from rich.progress import track
from rich.table import Table

from slimseg.errors import SlimsegError
from slimseg.graph import costs
from slimseg.graph.graph import Graph
from slimseg.runtimes.benchmark import ratio, time_files
from slimseg.runtimes.litert.quantising import quantizer
from slimseg.runtimes.litert.writing import writer

ROOT = Path(__file__).resolve().parents[1]
PRECISIONS = ("float32", "int8")
FEW = 0.1
NOT_MEASURED = (
    "quantisation-aware training is the most powerful (4.2): slimseg recovers accuracy by distillation before it "
    "quantises, see CamVid",
    "CoreML is much faster than TFLite on iOS, NCNN on Android (5): those runtimes do not run here",
)


@dataclass(frozen=True)
class Outcome:
    """One case: by precision, times faster, or points of mIoU gained; None: not possible, `notes` say why."""

    label: str
    claimed_low: float
    claimed_high: float
    float32: float | None
    int8: float | None
    before_ms: dict[str, float]
    after_ms: dict[str, float]
    by_macs: float | None = None
    by_memory: float | None = None
    notes: str = ""

    def value(self, precision: str) -> float | None:
        return self.float32 if precision == "float32" else self.int8

    def holds(self, precision: str) -> bool | None:
        value = self.value(precision)
        return None if value is None else self.claimed_low <= value <= self.claimed_high


@dataclass(frozen=True)
class Row:
    """One claim, measured: `quantity` is "times faster", "times smaller" or "points of mIoU gained"."""

    name: str
    section: str
    sentence: str
    claimed: str
    quantity: str
    sometimes: bool
    outcomes: tuple[Outcome, ...]

    @property
    def is_ratio(self) -> bool:
        return self.quantity.startswith("times")

    def measured(self, precision: str) -> str:
        values = [value for outcome in self.outcomes if (value := outcome.value(precision)) is not None]
        if not values:
            return ""
        low, high = (_times(value) if self.is_ratio else f"{value:+.1f}" for value in (min(values), max(values)))
        return f"{low} to {high}{'x' if self.is_ratio else ' points'}"

    def count(self, precision: str) -> tuple[int, int]:
        """Cases where the claim holds, and cases."""
        found = [outcome.holds(precision) for outcome in self.outcomes if outcome.holds(precision) is not None]
        return sum(map(bool, found)), len(found)

    @property
    def verdict(self) -> str:
        """From the measurements of both precisions alone; a case in ten is no "part", noise alone can do that."""
        good, total = (sum(pair) for pair in zip(*(self.count(precision) for precision in PRECISIONS), strict=True))
        counts = ", ".join(
            f"{precision} {held} of {of}" for precision in PRECISIONS for held, of in [self.count(precision)] if of
        )
        if good == total or (self.sometimes and good):
            return f"holds ({counts})"
        return f"{'holds in part' if good > FEW * total else 'does not hold'} ({counts})"

    def exceptions(self) -> str:
        """Where it does not hold, or where it does if those cases are fewer."""
        split: dict[bool, list[str]] = {True: [], False: []}
        for outcome in self.outcomes:
            by = [precision for precision in PRECISIONS if outcome.holds(precision) is False]
            of = [precision for precision in PRECISIONS if outcome.holds(precision)]
            if by:
                split[False].append(f"{outcome.label} ({' and '.join(by)})")
            if of:
                split[True].append(f"{outcome.label} ({' and '.join(of)})")
        if not split[False] or not split[True]:
            return ""
        held = self.sometimes or len(split[True]) < len(split[False])
        return ("only: " if held else "not: ") + "; ".join(split[held])


def _times(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def write_pair(case: Case, scratch: Path) -> tuple[dict[str, tuple[Path, Path]], Graph, Graph, str]:
    """(before, after) files by precision, the two graphs, and why there is no int8, if so."""
    before, after = case.before(), case.after()
    plain = tuple(scratch / f"{name}.tflite" for name in ("before", "after"))
    for graph, path in zip((before, after), plain, strict=True):
        writer.write(graph, path)
    files = {} if case.quantised else {"float32": (plain[0], plain[1])}
    try:
        int8 = tuple(quantised(graph, path) for graph, path in zip((before, after), plain, strict=True))
    except SlimsegError as error:
        return files, before, after, f"no int8: {error}"
    files["int8"] = (plain[0] if case.quantised else int8[0], int8[1])
    return files, before, after, ""


def quantised(graph: Graph, path: Path) -> Path:
    """The int8 file beside `path`, int8 at both ends; the ranges are of a normal random input."""
    result = path.with_suffix(".int8.tflite")
    _, channels, height, width = graph.input_shape
    sample = np.random.default_rng(0).standard_normal((1, height, width, channels)).astype(np.float32)
    quantizer.quantize_int8(path, result, [sample], io="int8")
    return result


def measure(case: Case, scratch: Path, seconds: float) -> Outcome:
    """Both networks in both precisions, in turns."""
    files, before, after, notes = write_pair(case, scratch)
    first, second = costs.total(before), costs.total(after)
    work = second.macs / first.macs if case.per_mac else 1.0
    order = sorted({path for pair in files.values() for path in pair})
    timings = dict(zip(order, time_files(order, seconds_per_file=seconds), strict=True))
    speedups = {name: ratio(timings[a], timings[b]) * work for name, (a, b) in files.items()}
    return Outcome(
        case.label, *case.claimed, speedups.get("float32"), speedups.get("int8"),
        {name: timings[a].median_ms for name, (a, _) in files.items()},
        {name: timings[b].median_ms for name, (_, b) in files.items()},
        first.macs / second.macs * work if first.macs and second.macs and not case.quantised else None,
        first.memory_bytes / second.memory_bytes * work,
        notes,
    )  # fmt: skip


def timed(claim: Claim, scratch: Path, seconds: float) -> Row:
    outcomes = tuple(measure(case, scratch, seconds) for case in claim.cases)
    return Row(claim.name, claim.section, claim.sentence, claim.claimed, "times faster", claim.sometimes, outcomes)


def scored(
    name: str, section: str, sentence: str, claimed: str, pairs: Sequence[networks.Accuracy], scratch: Path
) -> Row:
    """A row of accuracy: points of mIoU that the second network of each pair gains."""
    known: dict[int, dict[str, float]] = {}
    outcomes = []
    for pair in track(pairs, description=name, transient=True):
        for graph in (pair.before, pair.after):
            if id(graph) not in known:
                known[id(graph)] = networks.miou(graph, scratch)
        old, new = known[id(pair.before)], known[id(pair.after)]
        gained = {precision: new[precision] - old[precision] for precision in PRECISIONS}
        notes = ", ".join(f"{precision} mIoU {old[precision]:.1f} → {new[precision]:.1f}" for precision in PRECISIONS)
        outcomes.append(Outcome(pair.label, *pair.claimed, gained["float32"], gained["int8"], {}, {}, notes=notes))
    return Row(name, section, sentence, claimed, "points of mIoU gained", False, tuple(outcomes))


def sizes(graphs: dict[str, Graph], scratch: Path) -> Row:
    """How many times smaller the int8 file is than the float32 one."""
    outcomes = []
    for label, graph in graphs.items():
        path = scratch / "size.tflite"
        writer.write(graph, path)
        smaller = path.stat().st_size / quantised(graph, path).stat().st_size
        outcomes.append(Outcome(label, *FASTER, None, smaller, {}, {}))
    sentence = "Post-training quantisation makes the file smaller."
    return Row("quantised_size", "4.1", sentence, "smaller", "times smaller", False, tuple(outcomes))


def accuracy_rows(graph: Graph, scratch: Path) -> list[Row]:
    return [
        scored(
            "input_smaller_accuracy", "2", "A smaller input loses little accuracy (nothing is retrained).",
            "at most 2 points of mIoU lost", networks.halved_accuracy(graph), scratch,
        ),
        scored(
            "nearest_accuracy", "3.2", "Nearest upsampling gives much the same result as bilinear.",
            "at most 1 point of mIoU apart", networks.nearest_accuracy(graph), scratch,
        ),
    ]  # fmt: skip


def with_networks(claim: Claim, graph: Graph) -> Claim:
    """The claim with its cases on whole networks."""
    more = {"input_halved": networks.halved_cases, "softmax": lambda g: (networks.softmax_case(g),)}
    return replace(claim, cases=(*claim.cases, *more[claim.name](graph))) if claim.name in more else claim


def svg(row: Row) -> str:
    rows = [
        plot.Row(
            outcome.label, (outcome.claimed_low, outcome.claimed_high),
            {precision: outcome.value(precision) for precision in PRECISIONS}, outcome.by_macs,
        )
        for outcome in row.outcomes
    ]  # fmt: skip
    return plot.draw(row.sentence, row.quantity, rows, logarithmic=row.is_ratio)


def save(rows: Sequence[Row], folder: Path) -> None:
    """article.json and the plots."""
    plots = folder / "article"
    plots.mkdir(parents=True, exist_ok=True)
    for row in rows:
        (plots / f"{row.name}.svg").write_text(svg(row))
    found = [{**asdict(row), "verdict": row.verdict} for row in rows]
    text = json.dumps({"claims": _finite(found), "not_measured": NOT_MEASURED}, indent=1, ensure_ascii=False)
    (folder / "article.json").write_text(text + "\n")


def _finite(value: object) -> object:
    """JSON has no infinity: an open end of a claimed range becomes null."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def markdown(rows: Sequence[Row]) -> str:
    lines = ["| § | claim | claimed | float32 | int8 | verdict |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row.section} | {row.sentence} [plot](results/article/{row.name}.svg) | {row.claimed} "
        f"| {row.measured('float32')} | {row.measured('int8')} | **{row.verdict.split(' (')[0]}** "
        f"({row.verdict.split(' (')[1]} |"
        for row in rows
    ]
    lines += ["", "Where (a claim that is not here came out alike in every case):", ""]
    lines += [f"- `{row.name}`, {row.exceptions()}" for row in rows if row.exceptions()]
    lines += ["", "Not measured: " + "; ".join(NOT_MEASURED) + ".", ""]
    plots = [f"![{row.sentence}](results/article/{row.name}.svg)\n" for row in rows]
    return "\n".join([*lines, "<details><summary>All plots</summary>\n", *plots, "</details>\n"])


def update_readme(rows: Sequence[Row], path: Path) -> None:
    """Between the two marks, so that the text around them stays."""
    start, end = "<!-- article: written by article.py -->", "<!-- /article -->"
    before, rest = path.read_text().split(start)
    path.write_text(f"{before}{start}\n{markdown(rows)}{end}{rest.split(end)[1]}")


def show(rows: Sequence[Row]) -> None:
    table = Table("§", "Claim", "Claimed", "float32", "int8", "Verdict", box=None, pad_edge=False)
    for row in rows:
        measured = (row.measured(precision) for precision in PRECISIONS)
        table.add_row(row.section, row.sentence, row.claimed, *measured, row.verdict)
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", help="names of claims; writes to runs/article")
    options = parser.parse_args()
    torch.set_num_threads(1)
    claims: Sequence[Claim] = layer_claims()
    graph = networks.network() if networks.available() else None
    if graph is not None and not options.quick:
        claims = [with_networks(claim, graph) for claim in claims]
    claims = [claim for claim in claims if not options.only or claim.name in options.only]
    whole = not options.quick and not options.only
    with tempfile.TemporaryDirectory(prefix="slimseg-") as scratch:
        seconds = 0.05 if options.quick else 0.2
        rows = [timed(claim, Path(scratch), seconds) for claim in track(claims, transient=True)]
        if not options.only:
            plain = {f"3x3 × {c}": net(c, 32, conv(c, c))() for c in (4, 16, 64, 256)}
            rows.append(sizes({**plain, **({"camvid_unet": graph} if graph is not None else {})}, Path(scratch)))
        if graph is not None and whole:
            rows += accuracy_rows(graph, Path(scratch))
    rows.sort(key=lambda row: row.section)
    save(rows, ROOT / "benchmarks/results" if whole else ROOT / "runs/article")
    if whole:
        update_readme(rows, ROOT / "benchmarks/README.md")
    show(rows)


if __name__ == "__main__":
    main()
