"""Recipes of DIN on clicks. Settings: the best of 15 trials on valid (``macrorec tune``), rounded."""

from __future__ import annotations

from dataclasses import replace

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
SNAPSHOT = replace(TRAIN, epochs=30, patience=6)
"""Under the snapshot, valid may stand still for several epochs before it rises again."""


def din_ml_100k_ctr() -> RunConfig:
    """MovieLens 100K, as the paper splits and counts it."""
    return datasets.ctr_ml_100k(
        MODEL.Config(dim=20, fields="volumes", dropout=0.34), replace(SNAPSHOT, lr=0.002, weight_decay=3.3e-06)
    )


def din_ml_100k_stream() -> RunConfig:
    """MovieLens 100K as a stream: the same test rows, as a live server would have met them."""
    return datasets.stream(
        datasets.ctr_ml_100k(
            MODEL.Config(dim=20, fields="volumes", dropout=0.13), replace(TRAIN, lr=0.0014, weight_decay=4.1e-06)
        )
    )


def din_amazon_ctr() -> RunConfig:
    """Amazon, as the paper splits and counts it."""
    return datasets.ctr_amazon(
        MODEL.Config(dim=10, fields="history", dropout=0.36), replace(SNAPSHOT, lr=0.028, weight_decay=0.0033)
    )


def din_amazon_stream() -> RunConfig:
    """Amazon as a stream: the same test rows, as a live server would have met them."""
    return datasets.stream(
        datasets.ctr_amazon(
            MODEL.Config(dim=5, fields="volumes", dropout=0.46), replace(TRAIN, lr=0.0013, weight_decay=2.2e-06)
        )
    )


def din_yelp_ctr() -> RunConfig:
    """Yelp, as the paper splits and counts it."""
    return datasets.ctr_yelp(
        MODEL.Config(dim=10, fields="volumes", dropout=0.24), replace(SNAPSHOT, lr=0.0066, weight_decay=2.5e-05)
    )


def din_yelp_stream() -> RunConfig:
    """Yelp as a stream: the same test rows, as a live server would have met them."""
    return datasets.stream(
        datasets.ctr_yelp(
            MODEL.Config(dim=10, fields="volumes", dropout=0.4), replace(TRAIN, lr=0.0048, weight_decay=0.0013)
        )
    )
