"""Recipes of FM on clicks. Settings: the best of 15 trials on valid (``macrorec tune``), rounded."""

from __future__ import annotations

from dataclasses import replace

from macrorec.models.fm import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig
from macrorec.train.trainer import TrainConfig

SPACE = {
    "model.dim": [5, 10, 20],
    "model.fields": ["history", "volumes"],
    "model.shared": [False, True],
    "train.lr": {"low": 1e-3, "high": 3e-2, "log": True},
    "train.weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
}

TRAIN = TrainConfig(epochs=20, batch_size=1024, lr=1e-2, weight_decay=5e-5, monitor="auc", patience=2)
SNAPSHOT = replace(TRAIN, epochs=30, patience=6)
"""Under the snapshot, valid may stand still for several epochs before it rises again."""


def fm_ml_100k_ctr() -> RunConfig:
    """MovieLens 100K, as the paper splits and counts it."""
    return datasets.ctr_ml_100k(
        MODEL.Config(dim=5, fields="volumes", shared=False), replace(SNAPSHOT, lr=0.011, weight_decay=1.5e-05)
    )


def fm_ml_100k_stream() -> RunConfig:
    """MovieLens 100K as a stream: the same test rows, as a live server would have met them."""
    return datasets.stream(
        datasets.ctr_ml_100k(
            MODEL.Config(dim=20, fields="volumes", shared=False), replace(TRAIN, lr=0.0015, weight_decay=0.00042)
        )
    )


def fm_amazon_ctr() -> RunConfig:
    """Amazon, as the paper splits and counts it."""
    return datasets.ctr_amazon(
        MODEL.Config(dim=20, fields="volumes", shared=False), replace(SNAPSHOT, lr=0.0094, weight_decay=0.00025)
    )


def fm_amazon_stream() -> RunConfig:
    """Amazon as a stream: the same test rows, as a live server would have met them."""
    return datasets.stream(
        datasets.ctr_amazon(
            MODEL.Config(dim=10, fields="volumes", shared=True), replace(TRAIN, lr=0.0026, weight_decay=0.00056)
        )
    )


def fm_yelp_ctr() -> RunConfig:
    """Yelp, as the paper splits and counts it."""
    return datasets.ctr_yelp(
        MODEL.Config(dim=20, fields="volumes", shared=False), replace(SNAPSHOT, lr=0.001, weight_decay=0.0002)
    )


def fm_yelp_stream() -> RunConfig:
    """Yelp as a stream: the same test rows, as a live server would have met them."""
    return datasets.stream(
        datasets.ctr_yelp(
            MODEL.Config(dim=20, fields="volumes", shared=False), replace(TRAIN, lr=0.0015, weight_decay=0.00042)
        )
    )
