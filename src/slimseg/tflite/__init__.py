"""Reads, checks, edits and writes `.tflite` files, as bytes and tables; nothing here runs one."""
