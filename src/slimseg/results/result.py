"""The base of all results."""

from __future__ import annotations

from dataclasses import asdict, fields
from html import escape
from typing import Any, ClassVar

from slimseg.deployment import Deployment


class Result:
    """Base of all results: gives each the same JSON shape, with its fields and the properties named in `computed`."""

    computed: ClassVar[tuple[str, ...]] = ()  # properties that `as_dict` includes beside the fields
    headline: ClassVar[tuple[str, ...]] = ()  # fields and properties shown at a prompt and in a notebook

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={value}" for name, value in self._facts())
        return f"{type(self).__name__}({facts}, ...)"

    def _repr_html_(self) -> str:
        """A small table for notebooks."""
        rows = "".join(f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in self._facts())
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"

    def _facts(self) -> list[tuple[str, str]]:
        return [(name, _brief(getattr(self, name))) for name in self.headline]

    def as_dict(self) -> dict[str, Any]:
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        return {name: _plain(getattr(self, name)) for name in (*names, *self.computed)}


def _brief(value: Any) -> str:
    """A value in a few characters; for a tuple, its length."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{len(value)} of them" if isinstance(value, tuple) else repr(value)


def _plain(value: Any) -> Any:
    """`value` with all results inside it, at any depth, turned into dictionaries."""
    if isinstance(value, Result):
        return value.as_dict()
    if isinstance(value, Deployment):
        return asdict(value)
    if isinstance(value, tuple):
        return tuple(_plain(each) for each in value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value
