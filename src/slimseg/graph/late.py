"""Graph modules whose code is written when it is first asked for: a search edits hundreds of networks that never run.

`fx.GraphModule` writes and compiles Python source after each edit, a fifth of an edit's time.
"""

from __future__ import annotations

import copy
import weakref
from typing import Any

from torch import fx


class LateModule(fx.GraphModule):
    """The same as `fx.GraphModule`, but `recompile` only notes that there is something to compile."""

    def recompile(self) -> Any:
        self.__dict__.pop("_code", None)
        type(self).forward = _Forward(self)  # type: ignore[assignment,method-assign]  # each has a class of its own

    @property
    def code(self) -> str:
        """The source of `forward`."""
        _ = self.forward
        return str(super().code)

    def __str__(self) -> str:
        _ = self.forward
        return str(super().__str__())

    def __reduce__(self) -> Any:
        return fx.GraphModule(self, copy.deepcopy(self.graph)).__reduce__()


class _Forward:
    """In the place of the method `forward` until somebody looks for it, in the module or in its class."""

    def __init__(self, module: LateModule) -> None:
        self.module = weakref.ref(module)

    def __get__(self, instance: LateModule | None, owner: type[LateModule]) -> Any:
        module = instance if instance is not None else self.module()
        if module is None or type(module) is not owner:
            raise AttributeError("the module of this code is gone")
        fx.GraphModule.recompile(module)
        return getattr(owner if instance is None else instance, "forward")
