"""Recipes of ItemKNN."""

from __future__ import annotations

from macrorec.models.itemknn import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig

SPACE = {"model.k": {"low": 5, "high": 500, "log": True}, "model.shrinkage": {"low": 0.0, "high": 300.0}}


def itemknn_ml_100k_u1() -> RunConfig:
    """ItemKNN on CCBIE's split of MovieLens 100K."""
    return datasets.ml_100k_u1(MODEL.Config(k=100))


def itemknn_ml_100k() -> RunConfig:
    """The last of every user's ratings, by items alike."""
    return datasets.ml_100k(MODEL.Config(k=100))


def itemknn_gowalla() -> RunConfig:
    """Cosine of items on LightGCN's split."""
    return datasets.gowalla(MODEL.Config(k=100))


def itemknn_taobao() -> RunConfig:
    """Cosine of items over purchases, shrunk for pairs that few people bought: HR@10 .045 on valid, not .030."""
    return datasets.taobao(MODEL.Config(k=500, shrinkage=100.0))


def itemknn_dblp() -> RunConfig:
    """ItemKNN on DBLP."""
    return datasets.dblp(MODEL.Config(k=100))


def itemknn_market() -> RunConfig:
    """Cosine of items on the synthetic market."""
    return datasets.market(MODEL.Config(k=100))


def itemknn_wikipedia() -> RunConfig:
    """Links of Wikipedia, by items alike: many, for a pair without any is a tie. AUC-ROC .853 on valid, .800 of 100."""
    return datasets.wikipedia(MODEL.Config(k=3000, shrinkage=10.0))


def itemknn_yelp() -> RunConfig:
    """Links of Yelp, by items alike."""
    return datasets.yelp(MODEL.Config(k=1000))
