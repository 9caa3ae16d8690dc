"""The steps of `slimseg export`: choosing targets, writing their files, and checking every exported file."""
