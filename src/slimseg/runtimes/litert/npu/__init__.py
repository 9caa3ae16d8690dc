"""NPUs of phones: which layers of a `.tflite` they take, and what they compute, asked without a phone."""

from __future__ import annotations

from slimseg.runtimes.litert.npu import listed
from slimseg.runtimes.litert.npu.processor import Npu
from slimseg.runtimes.litert.npu.socs import SOCS
from slimseg.runtimes.processor import Processor


def known() -> tuple[Processor, ...]:
    """Every NPU that can be asked, whether or not what that needs is installed."""
    return (*(Npu(soc) for soc in SOCS), *listed.known())
