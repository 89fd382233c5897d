"""Recipes of UserKNN."""

from __future__ import annotations

from macrorec.models.userknn import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig

SPACE = {"model.k": {"low": 5, "high": 500, "log": True}, "model.shrinkage": {"low": 0.0, "high": 300.0}}


def userknn_ml_100k_u1() -> RunConfig:
    """UserKNN on CCBIE's split of MovieLens 100K."""
    return datasets.ml_100k_u1(MODEL.Config(k=100))


def userknn_ml_100k() -> RunConfig:
    """The last of every user's ratings, by users alike."""
    return datasets.ml_100k(MODEL.Config(k=100))


def userknn_gowalla() -> RunConfig:
    """Cosine of users on LightGCN's split."""
    return datasets.gowalla(MODEL.Config(k=100))


def userknn_taobao() -> RunConfig:
    """Cosine of users over purchases; k and shrinkage were chosen on valid."""
    return datasets.taobao(MODEL.Config(k=500, shrinkage=100.0))


def userknn_dblp() -> RunConfig:
    """UserKNN on DBLP."""
    return datasets.dblp(MODEL.Config(k=100))


def userknn_market() -> RunConfig:
    """Cosine of users on the synthetic market."""
    return datasets.market(MODEL.Config(k=100))


def userknn_wikipedia() -> RunConfig:
    """Links of Wikipedia, by users alike: many, for a pair without any is a tie. AUC-ROC .854 on valid, .732 of 100."""
    return datasets.wikipedia(MODEL.Config(k=1000))


def userknn_yelp() -> RunConfig:
    """Links of Yelp, by users alike."""
    return datasets.yelp(MODEL.Config(k=1000))
