"""Raw log -> Interactions -> Split. Knows nothing of torch."""
