"""One script per performance claim; each prints one JSON line."""
