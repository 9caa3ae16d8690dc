"""Qualcomm's chips (SoCs) that have an NPU for which LiteRT's plugin compiles.

The plugin has no list that can be asked for. These are the names in the plugin of ai-edge-litert 2.3.0 for which it
compiled a small int8 network with the libraries of onnxruntime-qnn 2.7.0 (November 2026), without those whose NPU is
older than Hexagon v68 or has none. That the installed plugin knows each of these names is tested.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Soc:
    """One chip. Several names can belong to the same chip."""

    name: str  # e.g. "SM8750"
    number: int  # Qualcomm's number of the chip, `socModel` in its libraries
    hexagon: int  # version of its NPU
    takes_floats: bool  # whether its NPU computes in float16, so that it takes float networks
    is_estimated: bool = False  # whether the compiler estimates the time of an inference
    title: str = ""  # as it is sold, for the chips of phones that are common


SOCS = (
    Soc("SM8350", 30, 68, True, title="Snapdragon 888"),
    Soc("SM8350P", 30, 68, True),
    Soc("SM8450", 36, 69, True, title="Snapdragon 8 Gen 1"),
    Soc("SM8475", 42, 69, True, title="Snapdragon 8+ Gen 1"),
    Soc("SM8550", 43, 73, True, title="Snapdragon 8 Gen 2"),
    Soc("SM8650", 57, 75, True, title="Snapdragon 8 Gen 3"),
    Soc("SM8750", 69, 79, True, title="Snapdragon 8 Elite"),
    Soc("SM8845", 97, 81, True, title="Snapdragon 8 Gen 5"),
    Soc("SM8845P", 97, 81, True),
    Soc("SM8850", 87, 81, True, title="Snapdragon 8 Elite Gen 5"),
    Soc("SM8325", 34, 68, False, title="Snapdragon 888 without modem"),
    Soc("SM8635", 68, 73, False, title="Snapdragon 8s Gen 3"),
    Soc("SM8735", 85, 73, False, title="Snapdragon 8s Gen 4"),
    Soc("SM7315", 38, 68, False),
    Soc("SM7325", 35, 68, False, title="Snapdragon 778G"),
    Soc("SM7350", 32, 68, False, title="Snapdragon 780G"),
    Soc("SM7435", 61, 73, False, title="Snapdragon 7s Gen 2"),
    Soc("SM7450", 41, 69, True, title="Snapdragon 7 Gen 1"),
    Soc("SM7475", 54, 69, False, title="Snapdragon 7+ Gen 2"),
    Soc("SM7550", 64, 73, False, title="Snapdragon 7 Gen 3"),
    Soc("SM7635", 73, 73, False, title="Snapdragon 7s Gen 3"),
    Soc("SM7675", 70, 73, False, title="Snapdragon 7+ Gen 3"),
    Soc("SM7750", 86, 73, False, title="Snapdragon 7 Gen 4"),
    Soc("SM6450", 50, 73, False, title="Snapdragon 6 Gen 1"),
    Soc("SM6475", 76, 73, False),
    Soc("SM6650", 74, 73, False),
    Soc("QCM6490", 93, 68, False),
    Soc("QCM6690", 78, 73, False),
    Soc("QCS8275", 82, 75, True),
    Soc("QCS8300", 82, 75, True),
    Soc("QCS8550", 66, 73, True),
    Soc("QCS8625", 90, 75, True),
    Soc("QCS9075", 77, 73, True, is_estimated=True),
    Soc("QCS9100", 77, 73, True, is_estimated=True),
    Soc("SA7255", 67, 75, True),
    Soc("SA8255", 52, 73, True, is_estimated=True),
    Soc("SA8295", 39, 68, True),
    Soc("SA8540", 62, 68, True, is_estimated=True),
    Soc("SA8610", 67, 75, True),
    Soc("SA8620", 67, 75, True),
    Soc("SA8620P", 67, 75, True),
    Soc("SA8630", 52, 73, True, is_estimated=True),
    Soc("SA8650", 52, 73, True, is_estimated=True),
    Soc("SA8775", 52, 73, True, is_estimated=True),
    Soc("SA8797", 72, 81, True, is_estimated=True),
    Soc("SAR1130P", 58, 73, False),
    Soc("SAR2130P", 46, 73, False),
    Soc("SAR2230P", 95, 81, False, is_estimated=True),
    Soc("SC8280X", 37, 68, False),
    Soc("SC8380XP", 60, 73, True, title="Snapdragon X Elite"),
    Soc("SC8480XP", 88, 81, True, title="Snapdragon X2 Elite"),
    Soc("SSG2115P", 46, 73, False),
    Soc("SSG2125P", 58, 73, False),
    Soc("SW6100", 96, 81, False),
    Soc("SXR1230P", 45, 73, False),
    Soc("SXR2230P", 53, 69, True),
    Soc("SXR2330P", 75, 79, True),
)
