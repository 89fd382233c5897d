"""Recipes of logistic regression on clicks. Settings: the best of 15 trials on valid (``macrorec tune``), rounded."""

from __future__ import annotations

from dataclasses import replace

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
SNAPSHOT = replace(TRAIN, epochs=30, patience=6)
"""Under the snapshot, valid may stand still for several epochs before it rises again."""


def lr_ml_100k_ctr() -> RunConfig:
    """MovieLens 100K, as the paper splits and counts it."""
    return datasets.ctr_ml_100k(MODEL.Config(fields="volumes"), replace(SNAPSHOT, lr=0.026, weight_decay=6.5e-06))


def lr_ml_100k_stream() -> RunConfig:
    """MovieLens 100K as a stream: the same test rows, as a live server would have met them."""
    return datasets.stream(
        datasets.ctr_ml_100k(MODEL.Config(fields="volumes"), replace(TRAIN, lr=0.0078, weight_decay=0.00015))
    )


def lr_amazon_ctr() -> RunConfig:
    """Amazon, as the paper splits and counts it."""
    return datasets.ctr_amazon(MODEL.Config(fields="volumes"), replace(SNAPSHOT, lr=0.011, weight_decay=0.00014))


def lr_amazon_stream() -> RunConfig:
    """Amazon as a stream: the same test rows, as a live server would have met them."""
    return datasets.stream(
        datasets.ctr_amazon(MODEL.Config(fields="volumes"), replace(TRAIN, lr=0.0064, weight_decay=0.00029))
    )


def lr_yelp_ctr() -> RunConfig:
    """Yelp, as the paper splits and counts it."""
    return datasets.ctr_yelp(MODEL.Config(fields="volumes"), replace(SNAPSHOT, lr=0.029, weight_decay=1.3e-05))


def lr_yelp_stream() -> RunConfig:
    """Yelp as a stream: the same test rows, as a live server would have met them."""
    return datasets.stream(
        datasets.ctr_yelp(MODEL.Config(fields="volumes"), replace(TRAIN, lr=0.0061, weight_decay=0.00022))
    )
