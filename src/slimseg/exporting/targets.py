"""What can be exported: a runtime, and the form that its file has there, as in `tflite:int8`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from slimseg.errors import UserError

Runtime = Literal["tflite", "coreml", "ncnn"]
# In the order of the text for the user; what each form means is told by the writer of that runtime in this folder.
FORMS: dict[Runtime, tuple[str, ...]] = {
    "tflite": ("float32", "float16", "int8"),
    "coreml": ("float16", "float32", "palettised", "linear"),
    "ncnn": ("fp16", "fp32"),
}


@dataclass(frozen=True)
class Target:
    """One file to export. An empty `form` is the runtime's usual one, which may depend on the source."""

    runtime: Runtime
    form: str = ""

    @property
    def stem(self) -> str:
        """Of the exported files."""
        return f"model_{self.form}" if self.form else "model"

    def __str__(self) -> str:
        return f"{self.runtime}:{self.form}" if self.form else self.runtime


def parse(text: str) -> tuple[Target, ...]:
    """Targets from `--to`: names with commas between.

    Raises:
        UserError: an unknown runtime or form, nothing at all, or the same twice.
    """
    targets = tuple(_target(part.strip().lower()) for part in text.split(",") if part.strip())
    if not targets:
        raise UserError(f"--to {text!r} names nothing to export: give some of {', '.join(FORMS)}")
    twice = [str(target) for target in targets if targets.count(target) > 1]
    if twice:
        raise UserError(f"--to names {twice[0]} twice")
    return targets


def _target(text: str) -> Target:
    runtime, _, form = text.partition(":")
    for known, forms in FORMS.items():
        if runtime == known:
            if form and form not in forms:
                raise UserError(f"--to {text}: {known} has no form {form!r}: give one of {', '.join(forms)}")
            return Target(known, form)
    raise UserError(f"--to {text}: there is no such target: give some of {', '.join(FORMS)}")
