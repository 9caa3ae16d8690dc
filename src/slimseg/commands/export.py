"""`slimseg export`: writes one network as files for every runtime, and checks each file before it is delivered.

    source ──> for each target: write ──> does it run? ──> compare its masks with the Graph's ──┐
                   └─ if writing fails, or masks differ: no file, and the reason                │
    time the files interleaved, move them into the folder, write the model card <───────────────┘

If one target fails, the others are exported all the same.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from slimseg.commands.evaluate import Judge
from slimseg.errors import DataError, SlimsegError, Unsupported
from slimseg.exporting import advice, heads, parity, place, proven
from slimseg.exporting.place import Place
from slimseg.exporting.source import Source, open_source
from slimseg.exporting.targets import Target, parse
from slimseg.frontends import source_check
from slimseg.graph.description import OutputKind
from slimseg.graph.graph import Graph
from slimseg.graph.output import class_count
from slimseg.planning.pricing.probes import probe_images
from slimseg.progress import Progress, Silent
from slimseg.report import palette
from slimseg.report.model_card import NO_LICENCE, model_card, write_card
from slimseg.report.parity import write_overlay
from slimseg.results import Artefact, Disturbance, ExportResult, HeadTrial, ModelCard, Parity, Provenance
from slimseg.runtimes import benchmark, calm, deployed, registry
from slimseg.runtimes.exporter import Request, Written
from slimseg.training.data import Folder, Pixels, open_folder, say_notes
from slimseg.training.doubts import say_doubts

CALIBRATION_IMAGES = 100
PROBES = 8  # number of images on which values inside the network are examined
PARITY_IMAGES = 20
SECONDS_PER_FILE = 2.0  # longest timing per file


def export(
    model: Graph | str | Path,
    *,
    out: str | Path,
    images: str | Path | Folder | None = None,
    to: str | Sequence[Target] | None = None,
    head: OutputKind | None = None,
    compared: int = PARITY_IMAGES,
    licence: str = NO_LICENCE,
    sizes: Sequence[tuple[int, int]] = (),
    threads: int = 1,
    anyway: bool = False,
    progress: Progress | None = None,
) -> ExportResult:
    """Write a network for the runtimes of phones, check every file, and describe them all on a model card.

    Args:
        model: an opened Graph, any file that `load` opens, or the folder of a finished run of `slim`, whose
            `model.tflite` is then exported.
        out: folder for the files, `model_card.md` and `.json`; files of an earlier export are overwritten.
        to: targets separated by commas, optionally with a form, as in "tflite,tflite:int8"; by default all in
            `runtimes.registry.EXPORTERS`.
        head: "mask", "probabilities" or "logits"; by default the network's own kind of output.
        images: a folder with train/val x images/masks, or with images only, or the result of `open_folder`. Masks are
            compared on them, and the ranges of int8 and float16 are calibrated on them. None: synthetic images are
            used, and a float network cannot be exported in int8.
        compared: number of validation images on which masks are compared.
        licence: licence of the weights, in a sentence, for the card and the files.
        sizes: further input sizes (height, width) that the Core ML package accepts.
        threads: CPU threads of the runtimes that run on this machine.
        anyway: export a run of `slim` even if it did not meet its budget; the card says so.
        progress: where to show progress; silent by default.

    Returns:
        The result; exports that failed are in `ExportResult.failed`. If all failed, nothing is written, and the folder
        keeps its earlier files.

    Raises:
        UserError: an argument cannot be used; the message says why, and nothing is written.
    """
    to = ",".join(registry.EXPORTERS) if to is None else to
    targets = parse(to) if isinstance(to, str) else tuple(to)
    source = open_source(model, head, anyway)
    folder, progress = None if images is None else open_folder(images), progress or Silent()
    if folder is not None:
        say_notes(folder, progress)
    job = _Job(source, folder, compared, licence, sizes, threads, progress)
    with place.opened(Path(out)) as app:
        return job.run(targets, app, measure_heads=head is None)


@dataclass(frozen=True)
class _Checked:
    """The outcome of one target: its files, or the reason why there are none."""

    artefact: Artefact
    written: Written | None = None
    parity: Parity | None = None
    picture: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files to move into the folder."""
        files = self.written.paths if self.written else ()
        return files if self.picture is None else (*files, self.picture)

    @property
    def without_picture(self) -> _Checked:
        return replace(self, artefact=replace(self.artefact, picture=""))


class _Job:
    """One export, step by step."""

    def __init__(
        self,
        source: Source,
        folder: Folder | None,
        compared: int,
        licence: str,
        sizes: Sequence[tuple[int, int]],
        threads: int,
        progress: Progress,
    ) -> None:
        self.started = time.monotonic()
        self.source = source
        self.folder = folder
        self.licence = licence
        self.sizes = sizes
        self.threads = threads
        self.progress = progress
        self.compared = compared
        self.references: dict[str, parity.Reference] = {}  # by kind of output
        self.disturbed: Disturbance | None = None
        self.classes = source.graph.description.classes or (folder.classes if folder else ())
        self.notes = [*source.graph.notes, *(folder.notes if folder else ())]

    def run(self, targets: Sequence[Target], app: Place, measure_heads: bool) -> ExportResult:
        self.source = self._compared_with_its_own()
        tracked = self.progress.track(targets, "writing and checking")
        checked = [self._checked(target, app.scratch) for target in tracked]
        checked = self._timed(self._scored(checked))
        trials = self._heads(checked) if measure_heads else ()
        made = any(each.written for each in checked)
        card = self._card(checked if made else [each.without_picture for each in checked], trials)
        if made:
            app.take([*(path for each in checked for path in each.paths), *write_card(card, app.scratch)])
        parities = tuple(each.parity for each in checked if each.parity is not None)
        seconds = time.monotonic() - self.started
        return ExportResult(str(app.folder), card, parities, trials, seconds, tuple(self.notes))

    def _card(self, checked: Sequence[_Checked], trials: Sequence[HeadTrial]) -> ModelCard:
        graph, artefacts = self.source.graph, [each.artefact for each in checked]
        return model_card(
            artefacts,
            replace(graph.description, classes=tuple(self.classes)),
            model=graph.name,
            input_size=graph.input_size,
            licence=self.licence,
            images=max((each.parity.images for each in checked if each.parity is not None), default=0),
            recommendation=advice.recommend(artefacts, self._provenance),
            heads=advice.on_heads(trials, [each.target for each in artefacts if each.files]),
            host=deployed.machine_name(self.threads),
            provenance=self._provenance,
            disturbed=self.disturbed,
        )

    def _compared_with_its_own(self) -> Source:
        """The source with the result of its check: its masks compared with those of its own runtime, if available.

        Raises:
            ModelError: the masks differ.
        """
        opened, told = self.source.opened, self.source.provenance
        if opened is None:
            return self.source
        check = source_check.on_images(opened, self.probes)
        return replace(self.source, provenance=replace(told, source_check=str(check)))

    @cached_property
    def _provenance(self) -> Provenance:
        """The provenance for the card. If no run of `slim` is exported, the network itself is the original, and every
        mIoU is measured on the images on which masks are compared."""
        told = self.source.provenance
        if self.source.run is not None or not self.references:
            return told
        reference = next(iter(self.references.values()))
        return replace(told, original_miou=reference.miou, miou_images=len(reference.images))

    def _scored(self, checked: Sequence[_Checked]) -> list[_Checked]:
        """The files with mIoU on the same images: if a run is exported, those on which the run measured it."""
        if self.source.run is None:
            return list(checked)
        return [replace(each, **self._of_run(each)) for each in checked]

    def _of_run(self, checked: _Checked) -> dict[str, Any]:
        """A file's mIoU on the images of the exported run: from its result for the run's own file, else measured."""
        miou, slimmed = None, self.source.provenance.slimmed
        if checked.written is not None and checked.parity is not None:
            if slimmed is not None and checked.written.same_as == slimmed.file:
                miou = slimmed.miou
            elif self._has_images_of_run:
                miou = self._miou(checked.written)
        parity = None if checked.parity is None else replace(checked.parity, miou=None)
        return {"artefact": replace(checked.artefact, miou=miou), "parity": parity}

    @cached_property
    def _has_images_of_run(self) -> bool:
        """Whether the given images are those on which the run measured accuracy, with masks."""
        if self.folder is None or self.source.run is None or self.folder.val.masks is None:
            return False
        same = Path(proven.data_of(self.source.run)) == self.folder.path.absolute()
        return same and len(self.folder.val.images) == self.source.provenance.miou_images

    def _miou(self, written: Written) -> float | None:
        assert self.folder is not None
        graph = self.source.graph
        classes = class_count(graph) or max(2, len(self.classes))
        judge = Judge(self.folder.val, graph.description, classes, self.threads, self.progress)
        return judge.accuracy(written.path).miou

    def _checked(self, target: Target, scratch: Path) -> _Checked:
        """One target's files, compared with the network; a failure of this target does not affect the others."""
        folder = scratch / str(target).replace(":", "_")
        folder.mkdir()
        try:
            written = registry.EXPORTERS[target.name].export(self._request(target, folder))
            compared = self._compared(written)
        except DataError:
            raise  # the user's images cannot be used, which concerns all targets
        except SlimsegError as error:
            self.progress.say(f"  {target}: {error}")
            return _Checked(Artefact(target.name, (), reason=str(error)))
        if compared is None:
            return _Checked(written.artefact, written)
        picture = self._picture(written, compared)
        if compared.failed:
            reason = _departure(compared, target)
            self.progress.say(f"  {target}: {reason}")
            failed = Artefact(target.name, (), reason=reason, picture=picture.name)
            return _Checked(failed, parity=compared, picture=picture)
        measured = replace(_measured(written.artefact, compared), picture=picture.name)
        return _Checked(measured, written, compared, picture)

    def _request(self, target: Target, folder: Path) -> Request:
        names = palette.class_names(self.classes, len(self.classes) or class_count(self.source.graph))
        return Request(
            graph=self.source.graph,
            form=target.form,
            stem=target.stem,
            folder=folder,
            images=self.calibration,
            probes=self.probes,
            palette=[palette.css(colour) for colour in palette.colours(names)],
            licence=self.licence,
            sizes=self.sizes,
            files=self.source.files,
            precision=self.source.precision,
        )

    @cached_property
    def calibration(self) -> list[Pixels]:
        return [] if self.folder is None else self.folder.sample_images(CALIBRATION_IMAGES)

    @cached_property
    def probes(self) -> list[Pixels]:
        if self.folder is None:
            return probe_images(self.source.graph.input_size, PROBES - 2)
        return self.folder.sample_images(PROBES, seed=1)

    def _compared(self, written: Written) -> Parity | None:
        """How far the file's masks differ from the network's; None if this machine cannot run the file."""
        try:
            return parity.compare(self._reference(written.said), written.path, written.is_float)
        except Unsupported:
            return None

    def _heads(self, checked: Sequence[_Checked]) -> tuple[HeadTrial, ...]:
        """Every form of the output, timed on the runtimes that this machine can run, with one image."""
        runtimes = {each.parity.runtime for each in checked if each.written is not None and each.parity is not None}
        if not runtimes:
            return ()
        in_int8 = any(each.artefact.precision == "int8" for each in checked)
        image, ranges = self.probes[0], self.calibration if in_int8 else ()
        try:
            return heads.measured(
                self.source.graph, sorted(runtimes), image, self.threads, ranges, progress=self.progress
            )
        except SlimsegError as error:
            self.progress.say(f"  the forms of the output were not timed: {error}")
            return ()

    def _picture(self, written: Written, compared: Parity) -> Path:
        """Path of a picture: the image on which the file's mask differs most from the network's, with both masks."""
        reference = self._reference(written.said)
        worst = reference.names.index(compared.worst_image)
        image, wanted = reference.images[worst], reference.masks[worst]
        (got,) = parity.masks_of(written.path, [image])
        name = f"parity_{written.path.stem}_{compared.runtime}.png"
        return write_overlay(written.path.with_name(name), image, wanted, got, self.classes, written.path.name)

    def _reference(self, said: Graph) -> parity.Reference:
        kind = said.description.output_kind
        if kind not in self.references:
            split = None if self.folder is None else self.folder.val
            reference = parity.Reference(said, split, self.compared)
            if not self.references:
                doubts = reference.doubts(self.classes)
                say_doubts(doubts, self.progress)
                self.notes += doubts
            self.references[kind] = reference
        return self.references[kind]

    def _timed(self, checked: Sequence[_Checked]) -> list[_Checked]:
        """The files with their latencies, from interleaved runs; only files that this machine can run get one."""
        runs = [each for each in checked if each.written is not None and each.parity is not None]
        if not runs:
            return list(checked)
        self.progress.say("Timing the files side by side")
        paths = [each.written.path for each in runs if each.written is not None]
        timings = benchmark.time_files(paths, self.threads, SECONDS_PER_FILE)
        self.disturbed = calm.of_all(timing.seen for timing in timings)
        latencies = {path: timing.calm_ms for path, timing in zip(paths, timings, strict=True)}
        return [
            each
            if each.written is None
            else replace(each, artefact=replace(each.artefact, latency_ms=latencies.get(each.written.path)))
            for each in checked
        ]


def _departure(compared: Parity, target: Target) -> str:
    """Why a float file is not delivered, and which form of it may be."""
    where, its = compared.departure, registry.EXPORTERS[target.name]
    first = f" ({where.layer} is the first layer whose values differ)" if where else ""
    rounded = its.unrounded and (target.form or its.forms[0]) != its.unrounded
    instead = f": give `to` {target.name}:{its.unrounded}, which rounds no weights" if rounded else ""
    return f"{compared.disagreement_percent:.2f}% of pixels have another class than in the network{first}{instead}"


def _measured(artefact: Artefact, compared: Parity) -> Artefact:
    agree, runtime = 100 - compared.disagreement_percent, registry.known(compared.runtime).brand
    run = f"{runtime} runs it: {agree:.2f}% of the pixels of {compared.images} images have the network's class."
    return replace(
        artefact,
        miou=compared.miou,
        disagreement=compared.disagreement_percent,
        verified=(run, *artefact.verified),
    )
