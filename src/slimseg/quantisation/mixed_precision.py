"""Mixed precision: the few operators that lose most by 8 bits stay in float32, between conversions.

    Given   for every operator the share of pixels that change class if only it is in 8 bits (layer_sensitivity.py)
    Result  files with the worst 1, 2, 4, 8, ... operators in float32, until the loss is within the budget

The extra latency is measured: each file is timed in the same interleaved run as int8 throughout.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from slimseg.errors import SlimsegError, UserError
from slimseg.frontends import load
from slimseg.quantisation import grids
from slimseg.quantisation.bench import Base, Bench, Trial, bytes_of_values
from slimseg.quantisation.corrections import loss
from slimseg.quantisation.layer_sensitivity import layer_sensitivity
from slimseg.quantisation.network import QuantisedNetwork
from slimseg.quantisation.schemes import AUTO, Attempt
from slimseg.quantisation.source import Source
from slimseg.results import LayerSensitivity, QuantisedFile
from slimseg.runtimes import registry
from slimseg.tflite import file
from slimseg.training import separate_images

NONE = "none"
IMAGES = 8
_SAID = 4  # most layers named in a line of progress
_LARGEST_SHARE = 0.5  # largest share of operators in float32, 0-1: with more, int8 is no longer faster


def wanted(keep_float: str | Sequence[str], schemes: set[str]) -> str | tuple[str, ...]:
    """The user's choice: "auto", "none", or the names of the layers.

    Raises:
        UserError: layers are named although no file becomes int8, or the list is empty.
    """
    if keep_float in (AUTO, NONE):
        return str(keep_float)
    parts = keep_float.split(",") if isinstance(keep_float, str) else keep_float
    names = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    if not names:
        raise UserError("`keep_float` names no layer: give auto, none or the names of layers, LAYER,LAYER")
    if "int8" not in schemes:
        raise UserError(f"`keep_float` applies to int8 only, not to `scheme` {'/'.join(sorted(schemes))}: leave it out")
    return names


def check_names(names: Collection[str], source: Source) -> None:
    """Check the names of layers before minutes are spent.

    Raises:
        UserError: a name is neither an operator's in the user's file nor a layer's in the list of `--sensitivity`.
    """
    known = _operators(source.quantised_from)
    with suppress(SlimsegError):
        known |= {node.name for node in source.graph().layers()}
    for name in sorted(set(names) - known):
        near = get_close_matches(name, known, 1, 0.0)
        raise UserError(
            f"`keep_float` {name}: there is no such layer; the nearest name is {near[0]}, and `sensitivity` lists all"
        )


def _operators(path: Path) -> set[str]:
    """The names of a file's operators and of their results."""
    return {name for operator in file.read(path).operators for name in (operator.name, operator.result)}


def sensitivities(bench: Bench, base: Base, attempt: Attempt) -> tuple[LayerSensitivity, ...]:
    """The sensitivity of every operator of a float32 file that slimseg wrote, the worst first.

    Raises:
        SlimsegError: the file does not open, its tensors do not match the nodes of its graph, or it mixes images.
    """
    assert attempt.ranges is not None
    graph = load(base.path, verify=False)
    separate_images.check(graph)
    given = registry.of(base.path).quantiser().byte_range(base.path) if bench.io == "image" else {}
    network = QuantisedNetwork(graph, grids.probe(base.path), {**base.ranges(attempt.ranges), **given}, given)
    found = layer_sensitivity(graph, network, bench.tensor(IMAGES, sum(bytes_of_values(graph))), bench.progress)
    names = {operator.result: operator.name for operator in file.read(base.path).operators}
    return tuple(LayerSensitivity(names.get(result, result), percent) for result, percent in found.items())


def tried(
    bench: Bench, base: Base, plain: Trial, ranked: Sequence[LayerSensitivity], baseline: QuantisedFile, max_drop: float
) -> list[Trial]:
    """Files with more and more layers in float32, until one loses at most `max_drop`; timed in one run with `plain`.

    `max_drop` is in points of mIoU, or without labels in percent of pixels.
    """
    found: list[Trial] = []
    for names in _worst(ranked):
        bench.progress.say(f"Trying int8 with {len(names)} in float32: {', '.join(names[-_SAID:])}")
        found.append(_kept(bench, base, plain, names))
        if loss(baseline, found[-1]) <= max_drop:
            break
    return bench.timed(found, plain.row.original_ms, plain) if found else []


def by_hand(bench: Bench, plain: Trial, names: Sequence[str]) -> list[Trial]:
    """The file with the layers `names` in float32.

    Raises:
        SlimsegError: the names are those of a graph's layers, and the graph cannot be written.
    """
    base = plain.base if set(names) <= _operators(plain.base.path) else ours(bench, plain)
    return bench.timed([_kept(bench, base, plain, names)], plain.row.original_ms, plain)


def _kept(bench: Bench, base: Base, plain: Trial, names: Sequence[str]) -> Trial:
    return bench.judged(bench.tried(replace(plain.attempt, keep_float=tuple(names)), base))


def _worst(ranked: Sequence[LayerSensitivity]) -> Iterator[tuple[str, ...]]:
    """The worst 1, 2, 4, ... of the layers that change any pixel."""
    harmful = [each.layer for each in ranked if each.changed_percent > 0]
    count = 1
    while count <= min(len(harmful), max(1, int(_LARGEST_SHARE * len(ranked)))):
        yield tuple(harmful[:count])
        count *= 2


def ours(bench: Bench, plain: Trial) -> Base:
    """The file that `plain` was made from; written anew if its tensors do not have the names of a graph's nodes.

    Raises:
        SlimsegError: the file does not open, or cannot be written.
    """
    assert plain.attempt.ranges is not None
    if plain.base.is_ours:
        return plain.base
    try:
        return bench.written(bench.source.graph(), "written anew", plain.attempt.ranges)
    except SlimsegError as error:
        raise type(error)(f"the sensitivity of single layers cannot be measured: {error}") from error
