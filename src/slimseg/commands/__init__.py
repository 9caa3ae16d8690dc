"""One command each, its story top to bottom."""
