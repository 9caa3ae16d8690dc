"""The commands of slimseg: one module per command, which calls the steps of the command in order."""
