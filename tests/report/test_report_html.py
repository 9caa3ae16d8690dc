"""The page: self-contained, escaped, with the numbers of the result."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from slimseg.report.html import Example, render_report, write_report
from slimseg.report.wording import headline
from slimseg.results import Profile, SlimResult

HOSTILE = '<script>alert("x")</script>'


class _Resources(HTMLParser):
    """Collects what a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.titles = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.titles += tag == "title"
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


@pytest.fixture
def page(slim_result: SlimResult, before: Profile, after: Profile, examples: list[Example]) -> str:
    return render_report(slim_result, before, after, examples, ("road", HOSTILE))


def test_fetches_nothing(page: str) -> None:
    parser = _Resources()
    parser.feed(page)
    assert parser.titles == 1
    assert all(value.startswith(("data:", "#")) for value in parser.found)
    assert not re.search(r"url\(\s*['\"]?https?:|@import", page)


def test_names_are_escaped(page: str) -> None:
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page


def test_shows_the_result(page: str, slim_result: SlimResult) -> None:
    words = re.sub(r"\s+", " ", page)
    assert headline(slim_result) in words
    for edit in slim_result.edits:
        assert edit.technique.replace("_", " ") in words


def test_without_examples_there_are_no_pictures(slim_result: SlimResult, before: Profile, after: Profile) -> None:
    assert "data:image" not in render_report(slim_result, before, after)


def test_is_written_whole(slim_result: SlimResult, before: Profile, after: Profile, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(slim_result, path, before, after)
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")


def test_a_network_that_computes_nothing_has_a_page(slim_result: SlimResult, before: Profile) -> None:
    """Its file hands the image through: nothing in it takes time."""
    empty = replace(before, layers=())
    assert headline(slim_result) in render_report(slim_result, empty, empty)


def test_the_original_is_called_what_it_is(slim_result: SlimResult, before: Profile, after: Profile) -> None:
    result = replace(slim_result, baseline=replace(slim_result.baseline, weights="float16"))
    assert "Original, float16" in render_report(result, before, after)
