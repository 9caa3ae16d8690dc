"""An export at a glance: every file, how far its masks differ from the network's, and the recommended one."""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from slimseg.console import as_options
from slimseg.report import tables, units, wording
from slimseg.results import Artefact, ExportResult
from slimseg.runtimes import registry

_FILE, _FOR = 26, 20


def show_export(result: ExportResult, *, console: Console | None = None) -> None:
    """Print the files, what could not be exported and why, the advice, and the card's path."""
    card = result.card
    height, width = card.input_size
    title = Text.assemble((card.model, "bold"), f"  {width}x{height}, {_made(card.artefacts)}")
    parts: list[RenderableType] = [title, "", _files(card.artefacts)]
    if card.provenance.budget_met is False:
        parts.insert(1, Text(f"{card.provenance.verdict} It was exported nevertheless.", style="bold yellow"))
    parts += [_indented(f"{registry.EXPORTERS[each.target].brand}: {each.reason}", "red") for each in result.failed]
    parts += [*_for_mediapipe(card.artefacts), *(_indented(each, "dim") for each in _open_points(card.artefacts))]
    parts += [_indented(tables.note(note).plain, "yellow") for note in result.notes]
    if card.recommendation:
        parts += ["", Text(card.recommendation)]
    if card.heads:
        parts += ["", Text("The best form of the output for an app that needs the class of every pixel:")]
        parts += [_indented(sentence, "") for sentence in card.heads]
    parts += tables.disturbance(result.disturbed)
    where = f"masks compared on {card.images} images · " if card.images else ""
    parts += ["", Text(f"{where}took {units.duration(result.seconds)} · {card.host}", style="dim")]
    parts += tables.source_check(card.provenance.source_check)
    if any(each.files for each in card.artefacts):
        parts.append(Text(f"{result.folder}/model_card.md describes how an app uses them", style="bold"))
    else:
        parts.append(Text(f"Nothing was exported, and nothing was written to {result.folder}", style="bold red"))
    tables.show(console, *parts)


def _made(artefacts: tuple[Artefact, ...]) -> str:
    """How many of the wanted files were exported."""
    made = sum(bool(each.files) for each in artefacts)
    return f"{made} of {len(artefacts)} exported"


def _files(artefacts: tuple[Artefact, ...]) -> RenderableType:
    labelled = any(each.miou is not None for each in artefacts)
    miou = ("mIoU",) if labelled else ()
    rows = tables.table("File", "For", "Size", "Time", "Differs", *miou, numbers_from=2)
    for each in artefacts:
        rows.add_row(*_row(each, labelled))
    return rows


def _row(artefact: Artefact, labelled: bool) -> tuple[RenderableType, ...]:
    runtime = registry.EXPORTERS[artefact.target].brand
    if not artefact.files:
        return Text("none", style="red"), runtime
    differ = "not run" if artefact.disagreement is None else f"{units.percent(artefact.disagreement, 2)}%"
    return (
        tables.shortened(_names(artefact.files), _FILE),
        tables.shortened(f"{runtime} {artefact.precision.partition(',')[0]}", _FOR),
        units.size(artefact.size_bytes),
        "–" if artefact.latency_ms is None else units.milliseconds(artefact.latency_ms),
        differ,
        *((units.percent(artefact.miou),) if labelled else ()),
    )


def _names(files: tuple[str, ...]) -> str:
    """ "model.param + .bin"."""
    return " + ".join((files[0], *(f".{name.rpartition('.')[2]}" for name in files[1:])))


def _for_mediapipe(artefacts: tuple[Artefact, ...]) -> list[RenderableType]:
    files = [each.files[0] for each in artefacts if each.for_mediapipe]
    return [_indented(f"MediaPipe Tasks' ImageSegmenter runs {wording.few(files, 3)}.", "dim")] if files else []


def _open_points(artefacts: tuple[Artefact, ...]) -> list[str]:
    """What the card lists as not verified, each sentence once for all its files."""
    found: dict[str, list[str]] = {}
    for each in artefacts:
        for sentence in each.not_verified:
            found.setdefault(sentence, []).append(each.files[0] if each.files else each.target)
    return [f"{wording.few(names, 3)}: {sentence}" for sentence, names in found.items()]


def _indented(text: str, style: str) -> RenderableType:
    return Padding(Text(as_options(text), style=style), (0, 0, 0, 2))
