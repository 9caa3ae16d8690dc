"""What the delegate prints, recorded from ai-edge-litert 2.3.0."""

from __future__ import annotations

from slimseg.runtimes.litert.gpu import messages
from slimseg.runtimes.litert.gpu.messages import Refusal

PRINTED = """\
INFO: [delegate_webgpu.cc:342] Create WebGPU environment (use_low_power=0, enable_host_mapped_pointer=1)
WARNING: Logging before InitGoogle() is written to STDERR
I0000 00:00:1795918895.115327    8771 environment.cc:532] Selected adapter: SwiftShader Device (Subzero), \
arch=swiftshader, vendor=google, backend=Vulkan, adapterType=CPU / Software
ERROR: Following operations are not supported by GPU delegate:
TRANSPOSE_CONV: Max version supported: 3. Requested version 4.
RESHAPE: Tensor dimensions must be less than 5. windows
2 operations will run on the GPU, and the remaining 5 operations will run on the CPU.
I0000 00:00:1795918895.119045    8771 delegate_kernel.cc:984] Initializing WebGPU-based API from graph.
W0000 00:00:1795919180.588247   14842 gpu_model_builder.cc:3901] Shape mismatch in UpdateOutputTensors(conv). Requested
"""
WITHOUT_A_LOADER = """\
Warning: Couldn't load Vulkan: libvulkan.so.1: cannot open shared object file: No such file or directory
    at operator() (third_party/dawn/src/dawn/native/vulkan/BackendVk.cpp:368)
ERROR: [delegate_webgpu.cc:359] Failed to initialize WebGPU environment: INTERNAL: No adapters found
"""


def test_what_is_refused_and_how_much_is_taken():
    said = messages.read(PRINTED)
    assert (said.adapter, said.is_software, said.taken) == ("SwiftShader Device (Subzero)", True, 2)
    assert said.refusals == (
        Refusal("TRANSPOSE_CONV", "Max version supported: 3. Requested version 4."),
        Refusal("RESHAPE", "Tensor dimensions must be less than 5. windows"),
    )
    assert not said.faults
    assert len(said.doubts) == 1
    assert messages.read("No operations will run on the GPU, and all 7 operations will run on the CPU.").taken == 0
    assert messages.read("").taken is None


def test_why_there_is_no_device():
    said = messages.read(WITHOUT_A_LOADER)
    assert not said.adapter
    assert said.faults[0].startswith("Couldn't load Vulkan: libvulkan.so.1")
    assert said.faults[1] == "Failed to initialize WebGPU environment: INTERNAL: No adapters found"


def test_how_a_process_ended():
    ended = "m.tflite: the native runtime crashed"
    checked = f"{ended} (SIGABRT); it printed: F0000 00:00:1.2    3 model.cc:218] Check failed: x / y"
    assert messages.crash(checked) == "Check failed: x"
    assert messages.crash(f"{ended} (SIGILL); it printed: much") == "SIGILL"
    late = "m.tflite did not answer within 3 s and was stopped"
    assert messages.crash(late) == late
