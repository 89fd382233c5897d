"""Recipes of Rates, the simple rule of every table of clicks."""

from __future__ import annotations

from macrorec.models.rates import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig

SPACE = {
    "model.user_prior": {"low": 1.0, "high": 100.0, "log": True},
    "model.item_prior": {"low": 1.0, "high": 100.0, "log": True},
}


def rates_ml_100k_ctr() -> RunConfig:
    """MovieLens 100K, by Rates."""
    return datasets.ctr_ml_100k(MODEL.Config())


def rates_ml_100k_stream() -> RunConfig:
    """MovieLens 100K as a stream, by Rates."""
    return datasets.stream(rates_ml_100k_ctr())


def rates_amazon_ctr() -> RunConfig:
    """Amazon, by Rates."""
    return datasets.ctr_amazon(MODEL.Config())


def rates_amazon_stream() -> RunConfig:
    """Amazon as a stream, by Rates."""
    return datasets.stream(rates_amazon_ctr())


def rates_yelp_ctr() -> RunConfig:
    """Yelp, by Rates."""
    return datasets.ctr_yelp(MODEL.Config())


def rates_yelp_stream() -> RunConfig:
    """Yelp as a stream, by Rates."""
    return datasets.stream(rates_yelp_ctr())
