"""NPUs of makers whose compilers are not public: placement by the list of operators in LiteRT's plugin for them.

`listed.json` has each list with its source and date. A plugin's own list is what it falls back on, or checks first; the
maker's compiler may still refuse an operator on it for its sizes or types.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from slimseg.results.placement import LayerPlacement, Placement
from slimseg.runtimes.litert import placing
from slimseg.runtimes.processor import Processor
from slimseg.tflite import file


@dataclass(frozen=True)
class Listed(Processor):
    """The NPUs of one maker."""

    maker: str  # its key in `listed.json`

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"npu:{self.maker}"

    @property
    def title(self) -> str:  # type: ignore[override]
        return str(_lists()[self.maker]["title"])

    def missing(self) -> str:
        return f"the compiler for {self.title} is not public: a list of operators stands for it"

    def place(self, path: Path) -> Placement:
        """Placement by the list alone. Raises: ModelError, if the file is damaged."""
        listed, operators = _lists()[self.maker], file.operators(path)
        taken = {each.index for each in operators if self.takes(each.op)}
        return Placement(
            model=path.name,
            processor=self.name,
            judge=f"the list of operators of {listed['date']} in {listed['source']}",
            is_own_verdict=False,
            layers=tuple(
                LayerPlacement(each.name, each.op, self.name)
                if each.index in taken
                else LayerPlacement(each.name, each.op, "cpu", self._why(each.op))
                for each in operators
            ),
            partitions=placing.runs(operators, taken),
            copies=placing.copies(operators, taken),
        )

    def takes(self, op: str) -> bool:
        """Whether the list has a TFLite operator, such as "CONV_2D"; a custom operator is on no list."""
        listed = _lists()[self.maker]
        if "takes" in listed:
            return op in listed["takes"]
        return op not in listed["refuses"] and op in vars(schema.BuiltinOperator)

    def _why(self, op: str) -> str:
        listed = _lists()[self.maker]
        if op in listed.get("refuses", ()):
            return f"{op} is on the list of operators that it refuses"
        return f"{op} is not on the list of operators that it takes"


@functools.cache
def _lists() -> Any:
    return json.loads(Path(__file__).with_name("listed.json").read_text())


def known() -> tuple[Listed, ...]:
    """One processor for each maker."""
    return tuple(map(Listed, _lists()))
