"""`python -m slimseg.cli`."""

from slimseg.cli import main

main()
