"""Recipes of EASE. None for Gowalla, nor for the links of Yelp.

Their 40,981 x 40,981 and 26,822 x 26,822 weights take 21 and 9 GB to solve for, twice with a stage on valid.
"""

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


def ease_wikipedia() -> RunConfig:
    """Links of Wikipedia, by ridge regression; lambda was chosen on valid."""
    return datasets.wikipedia(MODEL.Config(l2=5000.0))
