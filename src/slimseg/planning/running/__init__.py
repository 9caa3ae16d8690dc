"""One run of `slim`, from opening its folder to the final timing (the proof)."""
