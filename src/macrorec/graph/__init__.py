"""Split.train -> Graph: what models may know."""
