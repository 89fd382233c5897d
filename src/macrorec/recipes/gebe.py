"""Recipes of GEBE^p: 128 vectors and lambda 1 as in the paper, or what valid prefers, where a docstring says so."""

from __future__ import annotations

from macrorec.models.gebe import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig

SPACE = {"model.dim": {"low": 8, "high": 512, "log": True}, "model.decay": {"low": 0.0, "high": 10.0}}


def gebe_ml_100k_u1() -> RunConfig:
    """N@10 .4264, R@10 .1522 in CCBIE, Table II. Valid prefers few vectors: N@10 .236 there, .180 with 128."""
    return datasets.ml_100k_u1(MODEL.Config(dim=16, decay=0.3))


def gebe_dblp() -> RunConfig:
    """N@10 .2695, R@10 .3001 in CCBIE, Table II. Valid prefers few vectors: N@10 .214 there, .147 with 128."""
    return datasets.dblp(MODEL.Config(dim=16, decay=3.0))


def gebe_ml_100k() -> RunConfig:
    """The last of every user's ratings, by singular vectors."""
    return datasets.ml_100k(MODEL.Config())


def gebe_gowalla() -> RunConfig:
    """Singular vectors of LightGCN's split."""
    return datasets.gowalla(MODEL.Config())


def gebe_taobao() -> RunConfig:
    """Singular vectors of purchases."""
    return datasets.taobao(MODEL.Config())


def gebe_mb_taobao() -> RunConfig:
    """Singular vectors of views, carts and purchases as edges of one kind, each over sqrt(d_u d_i)."""
    return datasets.taobao(MODEL.Config(dim=512, graph="union", normalized=True))


def gebe_wikipedia() -> RunConfig:
    """AUC-ROC .9642, AUC-PR .9653 in CCBIE, Table III."""
    return datasets.wikipedia(MODEL.Config())


def gebe_yelp() -> RunConfig:
    """AUC-ROC .7862, AUC-PR .7617 in CCBIE, Table III."""
    return datasets.yelp(MODEL.Config())


def gebe_market() -> RunConfig:
    """Singular vectors on the synthetic market."""
    return datasets.market(MODEL.Config())
