"""The embedded default: procedural street scenes, and a heavy network trained on them, to slim offline."""
