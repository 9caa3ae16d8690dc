"""The delegate's verdict on a file, operator by operator.

compile the whole file        it is taken whole, or the delegate lists types of operators that it refuses
compile operators alone       which operators of these types are meant, and why
find the part that runs       of what it takes, the delegate runs only the largest part (`parts.py`)
compare with its own count    of operators on the GPU; if it differs, every operator is asked alone
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from slimseg.results.placement import LayerPlacement, Placement
from slimseg.runtimes.litert import placing
from slimseg.runtimes.litert.gpu import parts
from slimseg.runtimes.litert.gpu.alone import Alone
from slimseg.runtimes.litert.gpu.delegate import Answer, Delegate, device
from slimseg.tflite import file
from slimseg.tflite.file import File

GPU, CPU = "gpu", "cpu"
LEFT = "it is taken, but the delegate runs one part of a network only, the largest, and this is another"


def placement(delegate: Delegate, path: Path) -> Placement:
    """Where every operator of a file runs. A file or an operator that crashes the driver is one that it does not take.

    Raises:
        ModelError: the file is damaged.
    """
    found, model = file.opened(path)
    judge = f"LiteRT's GPU delegate on {device(delegate.driver).name}"
    answer = delegate.compiled(path, path)
    if answer.crash:
        judge += f", which the whole file crashes ({answer.crash})"
    alone = Alone(delegate, found, model)
    refused = {} if answer.takes_all else _refused(alone, answer)
    run = parts.run(model, found.operators, refused)
    agrees = answer.said.taken in (None, len(run))
    if not agrees:
        judge += f", asked about each layer alone; of the whole it runs {answer.said.taken} and not {len(run)}"
    wrong = alone.wrong(run) if answer.said.doubts else {}
    return placed(found, model, refused, judge, is_own_verdict=agrees, wrong=wrong)


def placed(
    found: File,
    model: Any,
    refused: Mapping[int, str],
    judge: str,
    is_own_verdict: bool,
    wrong: Mapping[int, str] | None = None,
) -> Placement:
    """The placement of a file.

    Args:
        refused: why the delegate refuses operators, by number.
        wrong: why the values of operators that it takes are wrong, by number.
    """
    taken, wrong = parts.run(model, found.operators, refused), wrong or {}
    layers = tuple(
        LayerPlacement(
            name=each.name,
            op=each.op,
            processor=GPU if each.index in taken else CPU,
            reason=wrong.get(each.index, "") if each.index in taken else refused.get(each.index, LEFT),
        )
        for each in found.operators
    )
    return Placement(
        model=found.path.name,
        processor=GPU,
        judge=judge,
        is_own_verdict=is_own_verdict,
        layers=layers,
        partitions=int(bool(taken)),
        copies=placing.copies(found.operators, taken),
    )


def _refused(alone: Alone, answer: Answer) -> dict[int, str]:
    """Why the delegate refuses operators, by number."""
    operators = alone.found.operators
    named = {each.op for each in answer.said.refusals}
    refused = alone.refused([each.index for each in operators if each.op in named])
    if not refused or _count(alone, refused) != answer.said.taken:
        refused = alone.refused(range(len(operators)))
    return refused or dict.fromkeys(range(len(operators)), f"it is taken alone, but not in this file: {answer.why}")


def _count(alone: Alone, refused: Collection[int]) -> int:
    return len(parts.run(alone.model, alone.found.operators, refused))
