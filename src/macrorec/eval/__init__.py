"""Measure a model: metrics, full ranking, links, clicks, comparison of runs."""
