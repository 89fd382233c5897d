"""Recipes of DIN, trained as MacGNN is; see ``datasets.ctr_ml_100k``."""

from __future__ import annotations

from macrorec.models.din import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig
from macrorec.train.trainer import TrainConfig

SPACE = {
    "model.dim": [5, 10, 20],
    "model.fields": ["history", "volumes"],
    "model.dropout": {"low": 0.0, "high": 0.5},
    "train.lr": {"low": 1e-3, "high": 3e-2, "log": True},
    "train.weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
}

TRAIN = TrainConfig(epochs=20, batch_size=1024, lr=1e-2, weight_decay=5e-5, monitor="auc", patience=2)


def din_ml_100k_ctr() -> RunConfig:
    """MovieLens 100K, by DIN."""
    return datasets.ctr_ml_100k(MODEL.Config(), TRAIN)


def din_ml_100k_stream() -> RunConfig:
    """MovieLens 100K as a stream, by DIN."""
    return datasets.stream(din_ml_100k_ctr())


def din_amazon_ctr() -> RunConfig:
    """Amazon, by DIN."""
    return datasets.ctr_amazon(MODEL.Config(), TRAIN)


def din_amazon_stream() -> RunConfig:
    """Amazon as a stream, by DIN."""
    return datasets.stream(din_amazon_ctr())


def din_yelp_ctr() -> RunConfig:
    """Yelp, by DIN."""
    return datasets.ctr_yelp(MODEL.Config(), TRAIN)


def din_yelp_stream() -> RunConfig:
    """Yelp as a stream, by DIN."""
    return datasets.stream(din_yelp_ctr())
