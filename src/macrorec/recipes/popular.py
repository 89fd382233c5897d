"""Recipes of Popular: what a table without it hides."""

from __future__ import annotations

from macrorec.models.popular import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig


def popular_ml_100k_u1() -> RunConfig:
    """Popularity on CCBIE's split of MovieLens 100K."""
    return datasets.ml_100k_u1(MODEL.Config())


def popular_ml_100k() -> RunConfig:
    """The last of every user's ratings, by popularity."""
    return datasets.ml_100k(MODEL.Config())


def popular_gowalla() -> RunConfig:
    """Popularity on LightGCN's split."""
    return datasets.gowalla(MODEL.Config())


def popular_taobao() -> RunConfig:
    """Popularity on purchases of Taobao."""
    return datasets.taobao(MODEL.Config())


def popular_dblp() -> RunConfig:
    """Popularity on DBLP."""
    return datasets.dblp(MODEL.Config())


def popular_market() -> RunConfig:
    """Popularity on the synthetic market."""
    return datasets.market(MODEL.Config())


def popular_wikipedia() -> RunConfig:
    """Popularity of articles: how far uniform non-edges alone give links away."""
    return datasets.wikipedia(MODEL.Config())


def popular_yelp() -> RunConfig:
    """Popularity of businesses: how far uniform non-edges alone give links away."""
    return datasets.yelp(MODEL.Config())
