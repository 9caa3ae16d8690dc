"""What fell off XNNPACK and the islands of float, on operators written by hand."""

from __future__ import annotations

import pytest

from slimseg.runtimes.litert.profiling.fallback import fallbacks, islands
from slimseg.tflite.file import Operator


def chain(*ops: tuple[str, str]) -> list[Operator]:
    """Operators (name, type of the result), each reading the one before; the first reads an input of its own type."""
    made: list[Operator] = []
    for index, (op, dtype) in enumerate(ops):
        before = ops[index - 1][1] if index else dtype
        made.append(
            Operator(index, op, f"{op}{index}", (), (1,), 0, 0, 0, dtype, (index,), (index + 1,), False, (before,))
        )
    return made


def test_conversions_count_for_the_operators_that_they_surround() -> None:
    operators = chain(
        ("CONV_2D", "int8"), ("DEQUANTIZE", "float32"), ("CUSTOM", "float32"), ("QUANTIZE", "int8"), ("CONV_2D", "int8")
    )
    (found,) = fallbacks(operators, {2}, [1.0, 0.2, 3.0, 0.3, 1.0], 5.5)
    assert (found.op, found.layers) == ("CUSTOM", ("CUSTOM2",))
    assert (found.kernel_ms, found.conversion_ms) == pytest.approx((3.0, 0.5))
    assert found.share == pytest.approx(3.5 / 5.5)


def test_kinds_are_ranked_and_no_conversion_counts_twice() -> None:
    operators = chain(("RELU", "int8"), ("TRANSPOSE", "int8"), ("ARG_MAX", "int32"), ("RELU", "int8"), ("CAST", "int8"))
    spent = [1.0, 0.5, 4.0, 1.0, 0.1]
    found = fallbacks(operators, {0, 2, 3, 4}, spent, 6.6)
    assert [each.op for each in found] == ["ARG_MAX", "RELU"]
    assert sum(each.kernel_ms + each.conversion_ms for each in found) == pytest.approx(6.6)
    assert found[1].layers == ("RELU0", "RELU3")


def test_a_conversion_on_its_own() -> None:
    (found,) = fallbacks(chain(("CONV_2D", "float32"), ("TRANSPOSE", "float32")), {1}, [1.0, 2.0], 3.0)
    assert (found.op, found.kernel_ms, found.conversion_ms) == ("TRANSPOSE", 2.0, 0.0)
    assert fallbacks(chain(("CONV_2D", "float32")), set(), [1.0], 1.0) == ()


def test_islands() -> None:
    operators = chain(
        ("QUANTIZE", "int8"),
        ("CONV_2D", "int8"),
        ("DEQUANTIZE", "float32"),
        ("PRELU", "float32"),
        ("QUANTIZE", "int8"),
        ("CONV_2D", "int8"),
        ("DEQUANTIZE", "float32"),
        ("ARG_MAX", "int32"),
    )
    found = islands(operators, [1.0, 2.0, 0.1, 3.0, 0.2, 2.0, 0.15, 5.0], 14.0)
    assert [island.ops for island in found] == [("PRELU",), ("ARG_MAX",)]
    assert found[0].layers == ("PRELU3",)
    assert (found[0].inside_ms, found[0].conversion_ms) == pytest.approx((3.0, 0.3))
    assert found[1].conversion_ms == pytest.approx(0.15)


def test_a_float_file_has_no_islands() -> None:
    assert islands(chain(("CONV_2D", "float32"), ("RELU", "float32")), [1.0, 1.0], 2.0) == ()
