"""TFLite in: a `.tflite` becomes the canonical, trainable Graph.

    reader.py       the file's operators in order, constants decoded; builds the Graph
    value.py        what flows between operators: a node and how the file lays its values out
    convolution.py, pooling.py, activation.py, arithmetic.py, layout.py
                    one function per operator: what it is in the vocabulary

A file is NHWC and the Graph NCHW by construction: every value of four dimensions is a node in NCHW beside a note of
the order in which the file has it, so that a TRANSPOSE changes the note and leaves no layer behind.
"""

from __future__ import annotations

from slimseg.frontends.tflite.reader import from_file

__all__ = ["from_file"]
