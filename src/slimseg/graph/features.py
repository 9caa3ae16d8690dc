"""Record a network's intermediate values while it runs, and run it from given intermediate values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, fx


class Features(fx.Interpreter):
    """Runs a module and keeps the values of the named nodes."""

    def __init__(self, module: fx.GraphModule, names: Iterable[str]) -> None:
        super().__init__(module)
        self.names = set(names)
        self.values: dict[str, Tensor] = {}
        self.given: Mapping[str, Tensor] = {}

    def __call__(self, x: Tensor, given: Mapping[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """(output, features by node name) for an NCHW input; nodes in `given` take their value from it."""
        self.values, self.given = {}, given or {}
        output = self.run(x)
        return output, self.values

    def run_node(self, n: fx.Node) -> Any:
        value = self.given[n.name] if n.name in self.given else super().run_node(n)
        if n.name in self.names:
            self.values[n.name] = value
        return value
