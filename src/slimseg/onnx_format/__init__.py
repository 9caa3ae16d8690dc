"""The `.onnx` format, which users bring and the runtime of that name runs: read within bounds, without running it."""
