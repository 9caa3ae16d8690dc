"""Writes a Graph as a `.tflite`."""
