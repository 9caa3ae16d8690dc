"""Parses the targets of an export: each is an exporter's name, optionally with the form of its file (`tflite:int8`)."""

from __future__ import annotations

from dataclasses import dataclass

from slimseg.errors import UserError
from slimseg.runtimes import registry


@dataclass(frozen=True)
class Target:
    """One file to export. An empty `form` is the exporter's default, which may depend on the source."""

    name: str  # a key of `registry.EXPORTERS`
    form: str = ""

    @property
    def stem(self) -> str:
        """Name of the exported files without suffix."""
        return f"model_{self.form}" if self.form else "model"

    def __str__(self) -> str:
        return f"{self.name}:{self.form}" if self.form else self.name


def parse(text: str) -> tuple[Target, ...]:
    """Targets from the text of `--to`: names separated by commas.

    A part that is no target but a form of the one before it is a further file of that one: "tflite:float16,int8".

    Raises:
        UserError: a target or form is unknown, a target occurs twice, or there is none.
    """
    parts = [part.strip().lower() for part in text.split(",") if part.strip()]
    targets: tuple[Target, ...] = ()
    for part in parts:
        before = targets[-1].name if targets else ""
        is_form = bool(before) and part not in registry.EXPORTERS and registry.EXPORTERS[before].has_form(part)
        targets += (_target(f"{before}:{part}" if is_form else part),)
    if not targets:
        raise UserError(f"`to` {text!r} names no target: give one or more of {', '.join(registry.EXPORTERS)}")
    twice = [str(target) for target in targets if targets.count(target) > 1]
    if twice:
        raise UserError(f"`to` names {twice[0]} twice")
    return targets


def _target(text: str) -> Target:
    name, _, form = text.partition(":")
    exporter = registry.EXPORTERS.get(name)
    if exporter is None:
        raise UserError(f"`to` {text}: there is no such target: give one or more of {', '.join(registry.EXPORTERS)}")
    if form and not exporter.has_form(form):
        known = ", ".join(exporter.forms) + (f", or {exporter.other_forms}" if exporter.other_forms else "")
        raise UserError(f"`to` {text}: {name} has no form {form!r}: give one of {known}")
    return Target(name, form)
