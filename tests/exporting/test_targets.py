"""What `--to` takes."""

from __future__ import annotations

import pytest

from slimseg.errors import UserError
from slimseg.exporting.targets import Target, parse
from slimseg.runtimes import registry


def test_targets_in_order() -> None:
    assert parse("ncnn, tflite:INT8,") == (Target("ncnn"), Target("tflite", "int8"))
    assert [target.stem for target in parse("tflite,tflite:int8")] == ["model", "model_int8"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "names no target"),
        (",", "names no target"),
        ("tensorrt", "no such target"),
        ("tflite:fp16", "no form 'fp16': give one of float32, float16, int8"),
        ("ncnn,ncnn", "twice"),
    ],
)
def test_what_is_refused(text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse(text)


@pytest.mark.parametrize("text", [f"{name}:{form}" for name, each in registry.EXPORTERS.items() for form in each.forms])
def test_every_form_is_written_as_it_is_read(text: str) -> None:
    (target,) = parse(text)
    assert str(target) == text
