"""Which edits a network gets, within a budget."""
