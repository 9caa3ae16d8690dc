"""TFLite frontend: a `.tflite` becomes the canonical, trainable Graph.

    reader.py       follows the file's operators in order, decodes constants and builds the Graph
    value.py        what flows between operators: a node, and the order of its dimensions in the file
    convolution.py, pooling.py, activation.py, arithmetic.py, layout.py
                    one function per operator: its form in the vocabulary

A file is NHWC and the Graph NCHW: every value of four dimensions is an NCHW node with a note of the order in which the
file has its dimensions, so a TRANSPOSE only changes the note and adds no layer.
"""

from __future__ import annotations

from slimseg.frontends.tflite.reader import from_file

__all__ = ["from_file"]
