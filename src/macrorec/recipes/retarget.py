"""Recipes of Retarget: the rule that every table of several behaviours must beat."""

from __future__ import annotations

from macrorec.models.retarget import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig

SPACE = {
    "model.behaviors": [[], ["view"], ["cart"]],
    "model.rates": ["item", "sets"],
    "model.a": {"low": 0.1, "high": 10.0, "log": True},
    "model.b": {"low": 1.0, "high": 100.0, "log": True},
}


def retarget_taobao() -> RunConfig:
    """The user's own viewed or carted items by (purchases + 1) / (viewers + 10): HR@10 .341, NDCG@10 .171."""
    return datasets.taobao(MODEL.Config())


def retarget_sets_taobao() -> RunConfig:
    """With a rate per item and set of behaviours, and b as validation prefers it."""
    return datasets.taobao(MODEL.Config(rates="sets", b=40.0))


def retarget_taobao_extra() -> RunConfig:
    """The same with one more view and cart per user."""
    return datasets.taobao(MODEL.Config(), extra=True)
