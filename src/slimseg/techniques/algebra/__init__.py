"""Code that techniques share: algebra on weights, and the search for parts of a graph that belong together."""
