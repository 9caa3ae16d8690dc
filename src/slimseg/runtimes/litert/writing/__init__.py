"""From a Graph to a `.tflite`."""
