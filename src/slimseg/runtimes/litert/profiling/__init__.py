"""Where the time of a `.tflite` goes."""
