"""Chooses the edits of a network, within a budget."""
