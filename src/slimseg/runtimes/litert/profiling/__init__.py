"""Profiling of a `.tflite`: the time of each operator."""
