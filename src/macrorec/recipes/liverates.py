"""Recipes of live rates, the simple rule for rankers on a stream."""

from __future__ import annotations

from macrorec.models.liverates import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig

SPACE = {
    "model.user_prior": {"low": 1.0, "high": 100.0, "log": True},
    "model.item_prior": {"low": 1.0, "high": 100.0, "log": True},
}


def liverates_ml_100k_stream() -> RunConfig:
    """MovieLens 100K as a stream, by live rates."""
    return datasets.stream(datasets.ctr_ml_100k(MODEL.Config()))


def liverates_amazon_stream() -> RunConfig:
    """Amazon as a stream, by live rates."""
    return datasets.stream(datasets.ctr_amazon(MODEL.Config()))


def liverates_yelp_stream() -> RunConfig:
    """Yelp as a stream, by live rates."""
    return datasets.stream(datasets.ctr_yelp(MODEL.Config()))
