"""Quantises a float `.tflite` to 8 bits."""
