"""Recipes of GF-CF."""

from __future__ import annotations

from macrorec.models.gfcf import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig

SPACE = {"model.n_vectors": {"low": 0, "high": 512}, "model.alpha": {"low": 0.0, "high": 2.0}}


def gfcf_ml_100k_u1() -> RunConfig:
    """GF-CF on CCBIE's split of MovieLens 100K."""
    return datasets.ml_100k_u1(MODEL.Config(n_vectors=64))


def gfcf_ml_100k() -> RunConfig:
    """The last of every user's ratings, by graph filters."""
    return datasets.ml_100k(MODEL.Config(n_vectors=64))


def gfcf_gowalla() -> RunConfig:
    """R@20 .1849, N@20 .1518 as published (Shen et al. 2021, Table 3)."""
    return datasets.gowalla(MODEL.Config(n_vectors=256, alpha=0.3))


def gfcf_taobao() -> RunConfig:
    """Graph filters over purchases."""
    return datasets.taobao(MODEL.Config(n_vectors=256))


def gfcf_dblp() -> RunConfig:
    """GF-CF on DBLP."""
    return datasets.dblp(MODEL.Config(n_vectors=16))


def gfcf_market() -> RunConfig:
    """Graph filters on the synthetic market."""
    return datasets.market(MODEL.Config(n_vectors=64))


def gfcf_wikipedia() -> RunConfig:
    """Links of Wikipedia, by graph filters."""
    return datasets.wikipedia(MODEL.Config(n_vectors=64))


def gfcf_yelp() -> RunConfig:
    """Links of Yelp, by graph filters."""
    return datasets.yelp(MODEL.Config(n_vectors=64))
