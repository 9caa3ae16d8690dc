"""Kernels to operators: fused, split, foreign and partitioned cases, on names that XNNPACK really gives."""

from __future__ import annotations

from slimseg.runtimes.litert.profiling import attribution
from slimseg.runtimes.litert.profiling.attribution import attribute, partition
from slimseg.runtimes.litert.profiling.kernel_names import Kind
from slimseg.runtimes.litert.profiling.trace import BUILTIN, DELEGATED, Kernel
from slimseg.tflite.file import Operator

CONV, GEMM, DW = "Convolution (NHWC, F32) IGEMM", "Fully Connected (NC, F32) GEMM", "Convolution (NHWC, F32) DWConv"
ADD, COPY, CLAMP = "Add (ND)", "Copy (NC, X32)", "Clamp (NC)"


def align(ops: list[str | Kind], tags: list[str]) -> list[int | None]:
    return attribution.align([Kind(op) if isinstance(op, str) else op for op in ops], tags)


def operator(index: int, op: str, inputs: tuple[int, ...], output: int) -> Operator:
    return Operator(index, op, f"op{index}", (), (1,), 0, 0, 0, "float32", inputs, (output,))


def test_one_to_one() -> None:
    ops = ["CONV_2D", "RELU", "DEPTHWISE_CONV_2D", "CONV_2D", "ADD", "LOGISTIC", "RESHAPE"]
    tags = [CONV, CLAMP, DW, GEMM, ADD, "Invalid Unary Op", "Static Reshape (NC)"]
    assert align(ops, tags) == list(range(7))


def test_a_fused_activation_has_no_kernel() -> None:
    assert align(["CONV_2D", "RELU", "CONV_2D"], [CONV, CONV]) == [0, 2]
    assert align(["PAD", "CONV_2D", "RELU", "ADD"], [CONV, ADD]) == [1, 3]


def test_an_activation_may_be_a_kernel_of_its_operators() -> None:
    active = Kind("ADD", activated=True)
    assert align([active, "MUL"], [ADD, CLAMP, "Multiply (ND)"]) == [0, 0, 1]
    assert align(["ADD", "RELU", "CONV_2D"], [ADD, CLAMP, CONV]) == [0, 1, 2]
    assert align([active, Kind("CONV_2D", activated=True)], [ADD, CLAMP, CONV]) == [0, 0, 1]


def test_tables_of_integers() -> None:
    """Arithmetic with a constant becomes a table, and joins the table that follows."""
    add, scale = Kind("ADD", activated=True, tabular=True), Kind("MUL", tabular=True)
    table, product = "Invalid Unary Op", "Multiply (ND)"
    assert align(["CONV_2D", add, "LOGISTIC"], [CONV, table]) == [0, 2]
    assert align(["CONV_2D", add, "MUL"], [CONV, table, product]) == [0, 1, 2]
    assert align(["CONV_2D", add, scale, "MUL"], [CONV, table, product])[2] == 3


def test_what_prepares_an_input_is_its_readers() -> None:
    integers = "Convert (NC, F32, QDU8)"
    assert align(["ADD", "CONV_2D", "PRELU"], [ADD, integers, CONV, "PReLU (ND)"]) == [0, 1, 1, 2]
    assert align(["CONCATENATION", "CONV_2D"], [COPY, COPY, integers, CONV]) == [0, 0, 1, 1]
    reshape, matrix = "Static Reshape (NC)", "Fully Connected (NC, F32) GEMM"
    slices = ["Slice (ND, X32)"] * 2
    assert align(["SLICE", "SLICE", "FULLY_CONNECTED"], [*slices, reshape, matrix]) == [0, 1, 2, 2]


def test_a_concatenation_is_several_copies() -> None:
    assert align(["CONV_2D", "CONCATENATION", "CONV_2D"], [CONV, COPY, COPY, COPY, GEMM]) == [0, 1, 1, 1, 2]


def test_conversions_go_to_the_quantise_operators() -> None:
    convert = "Convert (NC)"
    ops = ["QUANTIZE", "CONV_2D", "DEQUANTIZE", "PRELU", "QUANTIZE", "CONV_2D", "DEQUANTIZE"]
    tags = [convert, CONV, convert, "PReLU (ND)", convert, GEMM, convert]
    assert align(ops, tags) == list(range(7))


def test_a_deconvolution_is_not_a_convolution() -> None:
    assert align(["CONV_2D", "TRANSPOSE_CONV"], ["Deconvolution (NHWC, F32) Subconv2D"]) == [1]


def test_what_fits_nowhere_stays_unattributed() -> None:
    assert align(["CONV_2D"], ["Deconvolution (NHWC, F32) IGEMM", CONV]) == [None, 0]
    assert align([], [CONV]) == [None]


def test_an_interposed_transpose_belongs_to_a_neighbour() -> None:
    owners = align(["CONV_2D", "ADD"], [CONV, "Transpose (ND, X32)", ADD])
    assert (owners[0], owners[2]) == (0, 1)
    assert owners[1] in (0, 1)


def test_parts_are_cut_as_tflite_cuts_them() -> None:
    # 0 conv -> 1 builtin -> 2 conv; 3 conv reads the input alone, so it runs with 0, before the built-in one
    ops = [
        operator(0, "CONV_2D", (100,), 0),
        operator(1, "CUSTOM", (0,), 1),
        operator(2, "CONV_2D", (1,), 2),
        operator(3, "DEPTHWISE_CONV_2D", (100,), 3),
    ]
    parts = partition(ops, builtin={1})
    assert [[each.index for each in part] for part in parts] == [[0, 3], [2]]
    kernels = [
        Kernel(CONV, DELEGATED, 0),
        Kernel(DW, DELEGATED, 1),
        Kernel("CUSTOM", BUILTIN, 1),
        Kernel(GEMM, DELEGATED, 0),
    ]
    assert attribute(ops, kernels) == [0, 3, 1, 2]


def test_a_part_without_kernels() -> None:
    """The reshape of the second part is optimised away; operator 3 runs in the first part, before all others."""
    ops = [
        operator(0, "CONV_2D", (100,), 0),
        operator(1, "CUSTOM", (0,), 1),
        operator(2, "RESHAPE", (1,), 2),
        operator(3, "DEPTHWISE_CONV_2D", (100,), 3),
        operator(4, "CUSTOM", (2,), 4),
        operator(5, "CONV_2D", (4,), 5),
    ]
    kernels = [Kernel(CONV, DELEGATED, 0), Kernel(DW, DELEGATED, 1), Kernel("CUSTOM", BUILTIN, 1)]
    kernels += [Kernel("CUSTOM", BUILTIN, 4), Kernel(GEMM, DELEGATED, 0)]
    assert attribute(ops, kernels) == [0, 3, 1, 4, 5]


def test_long_files_align_in_order() -> None:
    ops = ["CONV_2D", "RELU", "DEPTHWISE_CONV_2D", "ADD"] * 50
    tags = [CONV, DW, ADD] * 50
    owners = align(ops, tags)
    assert owners == [index for index, op in enumerate(ops) if op != "RELU"]
