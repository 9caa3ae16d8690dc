"""The forms of a network that need no training: the original, exact edits, plain int8, both, a smaller input.

    original      in float32, and in int8 if that is faster: the baselines
    exact edits   timed in the deployed precision, written in int8 and in float32
    input sizes   the smallest sizes that are accurate enough without training, combined with the exact edits

Each form is a candidate file, evaluated on the validation images and timed interleaved with the original. The result
of a run is the best of these and the trained candidates, so it is never worse than any of them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slimseg.deployment import Deployment
from slimseg.errors import GraphError, SlimsegError, Unsupported
from slimseg.graph import costs
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.choosing.exact import ExactEdits, PlannedEdit, same_kind
from slimseg.planning.choosing.plan import Plan
from slimseg.planning.pricing import whatif
from slimseg.planning.running import deploy
from slimseg.planning.running.baselines import Baselines
from slimseg.planning.running.candidate import Candidate
from slimseg.planning.running.journal import Journal
from slimseg.progress import Progress
from slimseg.runtimes import benchmark, deployed, registry
from slimseg.techniques import EXACT, Site, named
from slimseg.techniques.input_size import InputSize
from slimseg.training.metrics import Accuracy

MOST_SIZES = 2  # number of input sizes that are evaluated on all images
ORIGINAL = "original"
_ENTRY, _EXACT = "untrained", "exact edits"  # names of entries in the journal


@dataclass(frozen=True)
class _Form:
    """One form before it is measured; `path` is its file, if that exists already."""

    name: str
    plan: Plan
    deployment: Deployment
    path: Path | None = None
    accuracy: Accuracy | None = None


@dataclass(frozen=True)
class Untrained:
    """One network in all forms that need no training."""

    asked: Graph  # the network with the kind of output that the user wants
    is_original: bool  # whether this is the original's kind of output
    baselines: Baselines
    budget: Budget
    images: deploy.Images  # calibration images for the ranges of int8
    accuracy: Callable[[Path], Accuracy]  # accuracy of a file on all validation images
    sizes: Callable[[Graph], float]  # quick estimate of a network's accuracy in points, 0-100
    folder: Path  # the run's work folder
    journal: Journal
    progress: Progress
    until: float  # a `time.monotonic()` after which no new form is begun

    def candidates(self) -> list[Candidate]:
        """All forms that could be measured in time, always including the original; a resumed run reuses them."""
        if _ENTRY not in self.journal:
            found = self._measured()
            files = [(self._paths(each["form"])[0], self.folder.parent / each["file"]) for each in found]
            self.journal.keep(_ENTRY, found, [path for pair in files for path in pair])
        return [self._replayed(each) for each in self.journal[_ENTRY]]

    def _measured(self) -> list[dict[str, Any]]:
        found = [told for form in self._forms() if (told := self._judged(form)) is not None]
        files = [self.folder.parent / each["file"] for each in found]
        paths = list(dict.fromkeys((self.baselines.float32.path, *files)))  # the original is timed once
        timings = dict(zip(paths, benchmark.time_files(paths), strict=True))
        speedups = [benchmark.ratio(timings[paths[0]], timings[path]) for path in files]
        return [told | {"speedup": speedup} for told, speedup in zip(found, speedups, strict=True)]

    def _forms(self) -> Iterator[_Form]:
        """The forms to measure: first the baselines, which are measured already, then the most promising ones."""
        plain, base = Plan(self.asked, (), ()), self.baselines
        if self.is_original:
            yield _Form(ORIGINAL, plain, self._float, base.float32.path, base.float32.accuracy)
            if base.deployment.precision == "int8" and base.int8 is not None:
                yield _Form("plain int8", plain, base.deployment, base.int8.path, base.int8.accuracy)
        else:
            yield _Form(ORIGINAL, plain, self._float)
        if base.deployment.precision == "int8":
            yield _Form("int8 with RGB bytes as input", plain, base.deployment)
        exact = self._exact()
        suffix = ", int8" if base.deployment.precision == "int8" else ""
        edited = Plan(self.asked, (), (), exact)
        if exact:
            yield _Form(f"exact edits{suffix}", edited, base.deployment)
        for site in self._sizes():
            plan = self._at_size(site, exact)
            yield _Form(f"{site.variant}{suffix}", plan, base.deployment)
        if exact and base.int8 is not None and suffix:
            yield _Form("exact edits", edited, self._float)

    @property
    def _float(self) -> Deployment:
        """The deployment of the unquantised original."""
        return self.budget.deployment

    def _exact(self) -> tuple[PlannedEdit, ...]:
        if _EXACT not in self.journal:
            half = (time.monotonic() + self.until) / 2  # the other half is for input sizes and for measuring accuracy
            deployment, progress = self.baselines.deployment, self.progress
            edits = ExactEdits(self.asked, EXACT, deployment, progress, self._objection, half).run()
            self.journal[_EXACT] = Plan(self.asked, (), (), tuple(edits.edits)).as_dict()
        return Plan.replayed(self.asked, self.journal[_EXACT]).rewrites

    def _objection(self, before: Graph, after: Graph) -> str | None:
        """Why an edit is not allowed, or None. Some rewrites enlarge the file by zeros or repeated constants."""
        if self.budget.max_size_bytes is not None and costs.total(after).params > costs.total(before).params:
            return "it has more parameters, and the budget limits the file's size"
        return same_kind(before, after)

    def _sizes(self) -> Sequence[Site]:
        """The smallest input sizes at which the untrained network loses no more than `max_drop`; the smallest last."""
        if not self.budget.allows("images"):
            return ()
        least, accurate = self.sizes(self.asked) - self.budget.max_drop, list[Site]()
        for site in InputSize().find(self.asked).sites:
            if time.monotonic() >= self.until or self.sizes(InputSize().apply(self.asked, site)) < least:
                break
            accurate.append(site)
        return accurate[-MOST_SIZES:]

    def _at_size(self, site: Site, exact: Sequence[PlannedEdit]) -> Plan:
        """The plan that changes the input size, with those exact edits that can be made at this size."""
        price = whatif.price(self.asked, [site], self.baselines.deployment, self.progress).prices.get(site)
        resized, kept = InputSize().apply(self.asked, site), list[PlannedEdit]()
        graph = resized
        for each in exact:
            try:
                graph = named(each.site.technique).apply(graph, each.site)
            except (Unsupported, GraphError):
                continue
            kept.append(each)
        return Plan(resized, (PlannedEdit(site, price.saving_ms if price else 0.0, 0.0),), (), tuple(kept))

    def _judged(self, form: _Form) -> dict[str, Any] | None:
        """The form's file and accuracy, as JSON values; None if it cannot be written, or not in time."""
        entry, needed = f"untrained {form.name}", form.name == ORIGINAL
        if entry not in self.journal:
            if not (needed or form.accuracy or time.monotonic() < self.until):
                self.progress.say(f"  {form.name}: not measured, because its share of the time limit is used up")
                return None
            try:
                told = self._written(form)
                self.journal.keep(entry, told, [self._paths(form.name)[0], self.folder.parent / told["file"]])
            except (SlimsegError, ValueError) as error:
                if needed:
                    raise
                self.progress.say(f"  {form.name}: {error}")
                return None
        kept: dict[str, Any] = self.journal[entry]
        return kept

    def _written(self, form: _Form) -> dict[str, Any]:
        graph, (float_path, path) = _rewritten(form.plan), self._paths(form.name)
        deployed.write_float(graph, float_path)
        path = form.path or deployed.write_deployed(graph, path, self.images, form.deployment)
        accuracy, run = form.accuracy or self.accuracy(path), self.folder.parent
        return {
            "form": form.name,
            "plan": form.plan.as_dict(),
            "deployment": asdict(form.deployment),
            "file": str(path.relative_to(run) if path.is_relative_to(run) else path.absolute()),
            "miou": accuracy.miou,
            "agreement": accuracy.agreement,
        }

    def _paths(self, name: str) -> tuple[Path, Path]:
        """Paths of a form's float file and of its deployed file."""
        slug = "_".join(re.findall(r"[a-z0-9]+", name))
        suffix = registry.known(self.budget.runtime).suffix
        return self.folder / deployed.float_name(f"untrained_{slug}"), self.folder / f"untrained_{slug}{suffix}"

    def _replayed(self, told: Mapping[str, Any]) -> Candidate:
        plan = Plan.replayed(self.asked, told["plan"])
        return Candidate(
            plan=plan,
            student=plan.graph,
            graph=_rewritten(plan),
            float_path=self._paths(told["form"])[0],
            path=self.folder.parent / told["file"],
            accuracy=Accuracy(told["miou"], told["agreement"]),
            speedup=told["speedup"],
            original_accuracy=self.baselines.float32.accuracy,
            budget=self.budget,
            deployment=Deployment(**{**told["deployment"], "others": tuple(told["deployment"]["others"])}),
            form=told["form"],
            trained=False,
        )


def expected_shares(original: Graph, untrained: Sequence[Candidate], baselines: Baselines) -> tuple[float, float]:
    """Estimates for the student, before planning: its share of the original's pixels, and of the work per pixel, 0-1.

    The estimate assumes the smallest input size that is accurate enough, and the speed-up that the budget asks for; if
    it asks for none, half of the work.
    """
    budget, (height, width) = untrained[0].budget, original.input_size
    accurate = [each.graph.input_size for each in untrained if each.drop <= budget.max_drop]
    pixels = min((h * w / (height * width) for h, w in accurate), default=1.0)
    gain = baselines.float32.latency_ms / baselines.start_ms
    kept = 0.5 if budget.min_speedup is None else min(1.0, gain / (pixels * budget.min_speedup))
    return pixels, kept


def _rewritten(plan: Plan) -> Graph:
    graph = plan.graph
    for each in plan.rewrites:
        graph = named(each.site.technique).apply(graph, each.site)
    return graph
