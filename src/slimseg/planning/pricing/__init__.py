"""Measures how long layers take on a runtime, and how much time edits save."""
