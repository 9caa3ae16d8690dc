"""One run of `slim`, from its folder to its proof."""
