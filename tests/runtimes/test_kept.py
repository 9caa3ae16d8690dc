"""What a child process keeps loaded."""

from __future__ import annotations

from slimseg.runtimes.kept import Kept


def test_the_file_that_was_asked_for_longest_ago_goes() -> None:
    loaded: list[str] = []
    closed: list[str] = []
    kept: Kept[str] = Kept(2, closed.append)

    def get(name: str) -> str:
        return kept.get(name, lambda: loaded.append(name) or name)

    assert [get(name) for name in "abacb"] == list("abacb")
    assert loaded == ["a", "b", "c", "b"]
    assert closed == ["b", "a"]
