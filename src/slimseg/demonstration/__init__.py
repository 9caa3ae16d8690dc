"""The built-in example: generated street scenes, and a heavy network trained on them, to slim offline."""
