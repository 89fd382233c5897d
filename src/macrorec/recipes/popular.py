"""Recipes of Popular: what a table without it hides."""

from __future__ import annotations

from macrorec.models.popular import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig


def popular_ml_100k_u1() -> RunConfig:
    """N@10 .325, R@10 .098 by our earlier hand run."""
    return datasets.ml_100k_u1(MODEL.Config())


def popular_ml_100k() -> RunConfig:
    """The last of every user's ratings, by popularity."""
    return datasets.ml_100k(MODEL.Config())


def popular_gowalla() -> RunConfig:
    """Popularity on LightGCN's split."""
    return datasets.gowalla(MODEL.Config())


def popular_taobao() -> RunConfig:
    """HR@10 .0109, NDCG@10 .0053 by our earlier hand run."""
    return datasets.taobao(MODEL.Config())


def popular_dblp() -> RunConfig:
    """N@10 .259, R@10 .313 by our earlier hand run."""
    return datasets.dblp(MODEL.Config())


def popular_market() -> RunConfig:
    """Popularity on the synthetic market."""
    return datasets.market(MODEL.Config())
