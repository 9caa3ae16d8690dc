"""Layers that multiply tensors: attention, products of two tensors, and linear layers that are given as an equation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from slimseg.errors import ModelError
from slimseg.frontends.keras import activations, layout
from slimseg.frontends.keras.builder import Value, parameter
from slimseg.frontends.keras.said import Said
from slimseg.frontends.keras.stored import Array
from slimseg.graph import ops

_HEADS_FIRST = (0, 2, 1, 3)


def multi_head_attention(said: Said) -> Value:
    """softmax(query · keyᵀ / √d) · value for each head, between linear layers; on (batch, tokens, features)."""
    config, sources = said.config, said.inputs
    if isinstance(said.kwargs.get("key"), Value):
        sources = [*sources, said.kwargs["key"]]
    masked = said.kwargs.get("attention_mask") is not None or said.kwargs.get("use_causal_mask")
    special = masked or config.get("use_gate") or config.get("sliding_window") is not None
    if special or said.kwargs.get("return_attention_scores"):
        raise ModelError("attention with a mask has no counterpart in slimseg: give the .tflite")
    whole = sources[0].keras_shape
    if config.get("attention_axes") not in (
        None,
        list(range(1, len(whole) - 1)),
        1 if len(whole) == 3 else None,
    ) or len(sources) not in (2, 3):
        raise ModelError("attention over several dimensions has no counterpart in slimseg: give the .tflite instead")
    sources = [_sequence(said, each, f"sequence{number}") for number, each in enumerate(sources)]
    query, value = sources[:2]
    key = sources[2] if len(sources) == 3 else value
    heads = [_heads(said, each, name) for each, name in ((query, "query"), (key, "key"), (value, "value"))]
    scores = said.emit(ops.MatMul(transposed=True), heads[0], heads[1], suffix="scores")
    scale = ops.Affine(torch.tensor(1 / math.sqrt(heads[0].shape[-1])))
    weights = said.emit(nn.Softmax(3), said.emit(scale, scores, suffix="scale"), suffix="softmax")
    mixed = said.emit(ops.MatMul(), weights, heads[2], suffix="mixed")
    turned = said.emit(ops.Transpose(_HEADS_FIRST), mixed, suffix="tokens")
    _, tokens, count, size = turned.shape
    flat = said.emit(ops.Reshape((1, tokens, count * size), channels_last=False), turned, suffix="joined")
    kernel, bias = _weights(said, "attention_output")
    if kernel.ndim != 3:
        raise ModelError("attention with outputs of several dimensions has no counterpart in slimseg")
    result = _linear(said, flat, kernel.reshape(-1, kernel.shape[-1]), bias, "")
    return layout.reshape(said.builder, result, (*whole[:-1], kernel.shape[-1]), suffix="map")


def _sequence(said: Said, x: Value, suffix: str) -> Value:
    """Without `attention_axes`, attention runs over all positions, of maps, too."""
    shape = x.keras_shape
    return layout.reshape(said.builder, x, (1, math.prod(shape[1:-1]), shape[-1]), suffix=suffix)


def attention(said: Said) -> Value:
    """Attention: softmax(query · keyᵀ) · value, of one head and without weights but a scale."""
    config, sources = said.config, said.inputs
    dropped = config.get("score_mode", "dot") != "dot" or said.kwargs.get("mask") or said.kwargs.get("use_causal_mask")
    if dropped or len(sources) not in (2, 3) or any(len(each.shape) != 3 for each in sources):
        raise ModelError("attention with a mask, or not on sequences, has no counterpart in slimseg: give the .tflite")
    query, value, key = (*sources, sources[1])[:3]
    scores = said.emit(ops.MatMul(transposed=True), query, key, suffix="scores")
    if config.get("use_scale"):
        (scale,) = said.weights("scale")
        scores = said.builder.affine(scores, scale=float(scale), suffix="scale")
    return said.emit(ops.MatMul(), said.emit(nn.Softmax(2), scores, suffix="softmax"), value)


def _heads(said: Said, x: Value, name: str) -> Value:
    """The queries, keys or values: (batch, heads, tokens, size)."""
    kernel, bias = _weights(said, name)
    if kernel.ndim != 3:
        raise ModelError(f"its {name} has a kernel of {kernel.shape}, not one of heads")
    _, heads, size = kernel.shape
    flat = _linear(said, x, kernel.reshape(kernel.shape[0], -1), bias, name)
    apart = ops.Reshape((1, x.shape[1], heads, size), channels_last=False)
    return said.emit(
        ops.Transpose(_HEADS_FIRST), said.emit(apart, flat, suffix=f"{name}_apart"), suffix=f"{name}_heads"
    )


def _weights(said: Said, part: str) -> tuple[Array, Array | None]:
    names = ("kernel", "bias") if said.config.get("use_bias", True) else ("kernel",)
    kernel, *bias = said.weights(*(f"{part}/{name}" for name in names))
    return kernel, bias[0] if bias else None


def _linear(said: Said, x: Value, kernel: Array, bias: Array | None, suffix: str) -> Value:
    """A linear layer with a kernel (in, out)."""
    if kernel.shape[0] != x.shape[-1] or (bias is not None and bias.size != kernel.shape[1]):
        raise ModelError(f"a kernel of {kernel.shape} does not fit a tensor of {x.keras_shape}")
    inputs, outputs = kernel.shape
    module = nn.Linear(inputs, outputs, bias is not None, device="meta")
    module.weight = parameter(kernel, (1, 0))
    if bias is not None:
        module.bias = parameter(bias.reshape(-1))
    return said.emit(module, x, suffix=suffix)


def einsum_dense(said: Said) -> Value:
    """A linear layer over the last dimensions, in the form of an equation such as `abc,cde->abde`."""
    config = said.config
    lead, summed, made = _equation(str(config.get("equation", "")), len(said.x.shape))
    bias_axes = str(config.get("bias_axes") or "")
    if bias_axes not in ("", made):
        raise ModelError(f"a bias over {bias_axes} has no counterpart in slimseg: give the .tflite instead")
    kernel, *rest = said.weights(*(("kernel", "bias") if bias_axes else ("kernel",)))
    if kernel.ndim != len(summed) + len(made):
        raise ModelError(f"a kernel of {kernel.shape} does not fit its equation")
    shape = said.x.keras_shape[: len(lead)]
    inner = math.prod(kernel.shape[: len(summed)])
    rows = layout.reshape(said.builder, said.x, (1, math.prod(shape[1:]), inner), suffix="rows")
    matrix = kernel.reshape(inner, -1)
    result = _linear(said, rows, matrix, rest[0] if rest else None, "product")
    result = layout.reshape(said.builder, result, (*shape, *kernel.shape[len(summed) :]))
    return activations.apply(said.builder, result, config.get("activation"), suffix="activation")


def _equation(text: str, rank: int) -> tuple[str, str, str]:
    """The labels that are kept, those that are summed over, and those that the kernel adds.

    Raises:
        ModelError: the equation is no linear layer over the last dimensions.
    """
    inputs, _, result = text.replace(" ", "").partition("->")
    first, _, kernel = inputs.partition(",")
    if first.startswith("...") and result.startswith("..."):
        free = "".join(chr(code) for code in range(ord("A"), ord("A") + max(0, rank - len(first) + 3)))
        first, result = free + first[3:], free + result[3:]
    summed = "".join(label for label in first if label in kernel)
    lead, made = first.removesuffix(summed), "".join(label for label in kernel if label not in first)
    is_linear = lead and summed and first == lead + summed and kernel == summed + made and result == lead + made
    if not is_linear or len(first) != rank or len(set(first + made)) != len(first + made) or not made:
        raise ModelError(f"the equation {text[:100]!r} has no counterpart in slimseg: give the .tflite instead")
    return lead, summed, made


def dot(said: Said) -> Value:
    """Dot: a matrix product of two sequences, summed over one dimension of each."""
    axes, inputs = said.config.get("axes"), said.inputs
    pair: Any = [axes, axes] if isinstance(axes, int) else axes
    if len(inputs) != 2 or any(len(each.shape) != 3 for each in inputs) or said.config.get("normalize"):
        raise ModelError("a normalised Dot, or one not of sequences, has no counterpart in slimseg: give the .tflite")
    first, second = (int(axis) % 3 for axis in pair)
    if 0 in (first, second):
        raise ModelError("a Dot over the batch has no counterpart in slimseg: give the .tflite instead")
    rows = inputs[0] if first == 2 else said.emit(ops.Transpose((0, 2, 1)), inputs[0], suffix="rows")
    return said.emit(ops.MatMul(transposed=second == 2), rows, inputs[1])
