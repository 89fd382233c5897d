"""Recipes of preferential attachment, for links alone: as a ranking it is Popular."""

from __future__ import annotations

from macrorec.models.attachment import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig

SPACE = {"model.smoothing": {"low": 0.01, "high": 10.0, "log": True}}


def attachment_wikipedia() -> RunConfig:
    """Links of Wikipedia by degrees alone."""
    return datasets.wikipedia(MODEL.Config())


def attachment_yelp() -> RunConfig:
    """Links of Yelp by degrees alone."""
    return datasets.yelp(MODEL.Config())
