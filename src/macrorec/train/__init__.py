"""Fit a model: samplers and the one training loop."""
