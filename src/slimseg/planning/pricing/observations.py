"""Findings from a file's profile alone, without an edit: time in which the machine computes little.

Each finding adds up the operators of one kind. `before_ms` is their time, and `after_ms` the time that remains if they
are removed: an upper bound that no what-if has confirmed. An operator counts only for the first kind that fits:

    left to built-in kernels    operators that XNNPACK does not run, with the conversions around them
    float islands               dequantise, a few operators in float, quantise again
    transposes, quantise and dequantise, space to batch and back, activations not fused into a layer
    badly served                layers at less than a third of the machine's peak rate; their time at the peak remains
    more bytes than MACs        memory-bound layers: they move more bytes than they compute multiply-accumulates
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from slimseg.planning.pricing.spent import Spent
from slimseg.results import Finding, LayerProfile, Needs, Profile

WORTH_SHARE = 0.005  # share of the latency below which a finding is left out
_ACTIVATIONS = frozenset(
    [
        "RELU",
        "RELU6",
        "RELU_N1_TO_1",
        "RELU_0_TO_1",
        "PRELU",
        "LEAKY_RELU",
        "HARD_SWISH",
        "ELU",
        "GELU",
        "TANH",
        "LOGISTIC",
    ]
)
_BATCHES = ("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND")
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")


def observe(profile: Profile) -> tuple[Finding, ...]:
    """Findings by kind of operator, without those that could save less than `WORTH_SHARE`."""
    free = {layer.name: layer for layer in profile.layers if layer.latency_ms > 0}
    found = [
        *_fallbacks(profile, free),
        *_islands(profile, free),
        *_by_op(profile, free, "transposes", "nothing", {"TRANSPOSE"}, "values only change their order"),
        *_by_op(profile, free, "dilation spelled as batches", "nothing", _BATCHES, "copies around a convolution"),
        *_conversions(profile, free),
        *_by_op(
            profile, free, "activations of their own", "images", _ACTIVATIONS,
            "a separate pass over values, not fused into a layer",
        ),
        *_badly_served(profile, free),
        *_moved(profile, free),
    ]  # fmt: skip
    return tuple(each for each in found if each.share >= WORTH_SHARE)


_Layers = dict[str, LayerProfile]


def _fallbacks(profile: Profile, free: _Layers) -> Iterable[Finding]:
    for each in profile.fallbacks:
        layers = _claim(free, each.layers)
        if layers:
            conversions = f", {each.conversion_ms:.2g} ms of it for conversions" if each.conversion_ms else ""
            reason = f"XNNPACK does not run {each.op}{conversions}: {_largest(layers)}"
            spent = each.kernel_ms + each.conversion_ms
            yield _finding(profile, "left to built-in kernels", "images", layers, reason, spent)


def _islands(profile: Profile, free: _Layers) -> Iterable[Finding]:
    """Findings in which only the conversions are saved; the operators inside an island stay, as integer operators."""
    for each in profile.islands:
        reason = (
            f"{', '.join(each.ops)} in float from {each.layers[0]} on, between dequantise and quantise, in a file of "
            f"integers: the conversions take {each.conversion_ms:.2g} ms"
        )
        yield _finding(profile, "float islands", "images", each.layers, reason, each.conversion_ms)


def _conversions(profile: Profile, free: _Layers) -> Iterable[Finding]:
    """Quantise and dequantise operators; none if there are float islands, whose findings count them already."""
    found = list(_by_op(profile, free, "quantise and dequantise", "images", _CONVERSIONS, "values change their type"))
    return () if profile.islands else found


def _by_op(
    profile: Profile, free: _Layers, name: str, needs: Needs, kinds: Iterable[str], why: str
) -> Iterable[Finding]:
    for op in sorted(kinds):
        layers = _claim(free, [layer.name for layer in free.values() if layer.op == op])
        if layers:
            yield _finding(profile, name, needs, layers, f"{why}: {_largest(layers)}", _spent(layers))


def _badly_served(profile: Profile, free: _Layers) -> Iterable[Finding]:
    """One finding per kind of operator; `after_ms` is the shortest time that the machine's roof allows."""
    for op in sorted({layer.op for layer in free.values()}):
        names = [layer.name for layer in free.values() if layer.op == op and layer.bound == "badly served"]
        layers = _claim(free, names)
        if layers:
            least = sum(layer.latency_ms * min(layer.efficiency, 1.0) for layer in layers)
            factor = _spent(layers) / max(least, 1e-9)
            reason = f"{factor:.1f} times as long as the roofline of this machine allows: {_largest(layers)}"
            yield _finding(profile, "badly served layers", "images", layers, reason, _spent(layers), least)


def _moved(profile: Profile, free: _Layers) -> Iterable[Finding]:
    for op in sorted({layer.op for layer in free.values()}):
        names = [layer.name for layer in free.values() if layer.op == op and layer.macs < layer.memory_bytes]
        layers = _claim(free, names)
        if layers:
            macs, moved = (sum(getattr(layer, field) for layer in layers) for field in ("macs", "memory_bytes"))
            reason = f"{macs / moved:.2g} MACs per byte moved{_balance(profile, moved)}: {_largest(layers)}"
            yield _finding(profile, "more bytes moved than computed", "images", layers, reason, _spent(layers))


def _balance(profile: Profile, moved: int) -> str:
    """In words, the MACs per byte at which this machine's arithmetic and memory take equal time; "" if unknown."""
    if not profile.roofs or not profile.roofs[0].bandwidth:
        return ""
    roof = profile.roofs[0]
    rate = next((rate for size, rate in roof.bandwidth if size >= moved), roof.bandwidth[-1][1])
    return f" (machine balance {roof.gmac_per_s / rate:.2g})" if rate else ""


def _claim(free: _Layers, names: Iterable[str]) -> list[LayerProfile]:
    """The layers of these names that are still free, slowest first; removes them from `free`."""
    return sorted((free.pop(name) for name in names if name in free), key=lambda layer: -layer.latency_ms)


def _spent(layers: Sequence[LayerProfile]) -> float:
    return sum(layer.latency_ms for layer in layers)


def _largest(layers: Sequence[LayerProfile]) -> str:
    """The number of operators, and the slowest of them with its output shape and time."""
    first = layers[0]
    shape = "x".join(str(length) for length in first.output_shape[1:])
    several = f"{len(layers)} {first.op} operators, the slowest" if len(layers) > 1 else f"the {first.op}"
    return f"{several} {first.name} to {shape} with {first.latency_ms:.2g} ms"


def _finding(
    profile: Profile,
    name: str,
    needs: Needs,
    layers: Sequence[LayerProfile] | Sequence[str],
    reason: str,
    before_ms: float,
    after_ms: float = 0.0,
) -> Finding:
    names = [layer if isinstance(layer, str) else layer.name for layer in layers]
    return Spent(names, before_ms, after_ms, profile.latency_ms).finding(name, reason, needs)
