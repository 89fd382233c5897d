"""Recipes of EASE."""

from __future__ import annotations

from macrorec.models.ease import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig

SPACE = {"model.l2": {"low": 1.0, "high": 10000.0, "log": True}}


def ease_ml_100k_u1() -> RunConfig:
    """N@10 .565, R@10 .192 by our earlier hand run at this lambda."""
    return datasets.ml_100k_u1(MODEL.Config(l2=500.0))


def ease_ml_100k() -> RunConfig:
    """The last of every user's ratings, by ridge regression."""
    return datasets.ml_100k(MODEL.Config(l2=500.0))


def ease_gowalla() -> RunConfig:
    """R@20 .1765, N@20 .1467 as published; needs some 13 GB of memory, and is refused where they are not free."""
    return datasets.gowalla(MODEL.Config(l2=500.0, precision="float32"))


def ease_taobao() -> RunConfig:
    """Ridge regression over purchases."""
    return datasets.taobao(MODEL.Config(l2=500.0))


def ease_dblp() -> RunConfig:
    """N@10 .316, R@10 .353 by our earlier hand run at this lambda."""
    return datasets.dblp(MODEL.Config(l2=500.0))


def ease_market() -> RunConfig:
    """Ridge regression on the synthetic market."""
    return datasets.market(MODEL.Config(l2=100.0))
