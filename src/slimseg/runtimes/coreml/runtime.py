"""Core ML, for iOS: packages are written and checked here, but run only on Apple's systems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from slimseg.runtimes.exporter import Exporter, Request, Written


class CoreML(Exporter):
    target = "coreml"
    brand = "Core ML"
    system = "iOS"
    suffix = ".mlpackage"
    forms = ("float16", "float32", "palettised", "linear")
    layout = "NCHW"
    snippets: ClassVar[Mapping[str, str]] = {"coreml.swift": "Core ML with Vision"}
    unrun = "Core ML runs on macOS and iOS only, where slimseg's tests run it"
    on_outputs = (
        "Core ML runs on Apple's systems only, so nothing is timed here. As far as its operations are known "
        "(docs/coreml.md) argmax runs on the Neural Engine but the M1 hands its integers to the CPU, and a last resize "
        "is software on the M1. So export the mask if the network has no last resize, otherwise the scores "
        "before that resize, and compare them in Xcode's performance report"
    )
    reason = "the only one that reaches the Neural Engine"

    def export(self, request: Request) -> Written:
        from slimseg.runtimes.coreml import exporter

        return exporter.write(request)


COREML = CoreML()
