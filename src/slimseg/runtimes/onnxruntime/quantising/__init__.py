"""int8 as ONNX Runtime and its providers read it: the float network between QuantizeLinear and DequantizeLinear.

grids.py   the scales and zero points of an int8 `.tflite`, by the names that both files share
qdq.py     a float `.onnx` with these scales
"""
