"""What edits and layers cost on a runtime."""
