"""Functions that return a RunConfig, one per table cell that we claim."""
