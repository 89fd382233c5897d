"""Recipes of LR, trained as MacGNN is; see ``datasets.ctr_ml_100k``."""

from __future__ import annotations

from macrorec.models.lr import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig
from macrorec.train.trainer import TrainConfig

SPACE = {
    "model.fields": ["history", "volumes"],
    "train.lr": {"low": 1e-3, "high": 3e-2, "log": True},
    "train.weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
}

TRAIN = TrainConfig(epochs=20, batch_size=1024, lr=1e-2, weight_decay=5e-5, monitor="auc", patience=2)


def lr_ml_100k_ctr() -> RunConfig:
    """MovieLens 100K, by LR."""
    return datasets.ctr_ml_100k(MODEL.Config(), TRAIN)


def lr_ml_100k_stream() -> RunConfig:
    """MovieLens 100K as a stream, by LR."""
    return datasets.stream(lr_ml_100k_ctr())


def lr_amazon_ctr() -> RunConfig:
    """Amazon, by LR."""
    return datasets.ctr_amazon(MODEL.Config(), TRAIN)


def lr_amazon_stream() -> RunConfig:
    """Amazon as a stream, by LR."""
    return datasets.stream(lr_amazon_ctr())


def lr_yelp_ctr() -> RunConfig:
    """Yelp, by LR."""
    return datasets.ctr_yelp(MODEL.Config(), TRAIN)


def lr_yelp_stream() -> RunConfig:
    """Yelp as a stream, by LR."""
    return datasets.stream(lr_yelp_ctr())
