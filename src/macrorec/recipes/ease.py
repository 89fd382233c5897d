"""Recipes of EASE. None for Gowalla: its 40,981 x 40,981 weights take 13 GB to solve for."""

from __future__ import annotations

from macrorec.models.ease import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig

SPACE = {"model.l2": {"low": 1.0, "high": 10000.0, "log": True}}


def ease_ml_100k_u1() -> RunConfig:
    """EASE on CCBIE's split of MovieLens 100K."""
    return datasets.ml_100k_u1(MODEL.Config(l2=500.0))


def ease_ml_100k() -> RunConfig:
    """The last of every user's ratings, by ridge regression."""
    return datasets.ml_100k(MODEL.Config(l2=500.0))


def ease_taobao() -> RunConfig:
    """Ridge regression over purchases."""
    return datasets.taobao(MODEL.Config(l2=500.0))


def ease_dblp() -> RunConfig:
    """EASE on DBLP."""
    return datasets.dblp(MODEL.Config(l2=500.0))


def ease_market() -> RunConfig:
    """Ridge regression on the synthetic market."""
    return datasets.market(MODEL.Config(l2=100.0))
