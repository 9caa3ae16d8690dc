"""What techniques share and is no technique itself: algebra on weights, and parts of a graph that belong together."""
