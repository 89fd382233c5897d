"""Recipes of CascadingRank, at the paper's settings for Taobao."""

from __future__ import annotations

from macrorec.models.cascadingrank import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig

SPACE = {
    "model.alpha": [0.0, 0.1, 0.3, 0.5],
    "model.beta": [0.3, 0.5, 0.7, 0.9],
}


def cascadingrank_taobao() -> RunConfig:
    """CascadingRank on the views, carts and purchases that the other models see."""
    return datasets.taobao(MODEL.Config())


def cascadingrank_taobao_extra() -> RunConfig:
    """HR@10 .3324, NDCG@10 .1626 (Ko, Jeon & Jung 2025), with one more view and cart per user, as there."""
    return datasets.taobao(MODEL.Config(), extra=True)
