"""From a float `.tflite` to one in 8 bits."""
