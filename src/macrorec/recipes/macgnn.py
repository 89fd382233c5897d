"""Recipes of MacGNN: batches of 1,024, d = 10 and Adam, as published; the rest chosen on valid."""

from __future__ import annotations

from macrorec.models.macgnn import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig
from macrorec.train.trainer import TrainConfig

SPACE = {
    "model.dim": [5, 10, 20],
    "model.tau": {"low": 0.4, "high": 2.0},
    "model.dropout": {"low": 0.0, "high": 0.5},
    "train.lr": {"low": 1e-3, "high": 3e-2, "log": True},
    "train.weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
}

TRAIN = TrainConfig(epochs=20, batch_size=1024, lr=1e-2, weight_decay=5e-5, monitor="auc", patience=2)

OURS = MODEL.Config(volumes=True)
"""On a stream, where edges are signed: the readout is told how many events there are of each type."""


def macgnn_ml_100k_ctr() -> RunConfig:
    """AUC .668 to .672 by the authors' code, selected on valid, on the 2,743 test rows with history."""
    return datasets.ctr_ml_100k(MODEL.Config(), TRAIN)


def macgnn_ml_100k_stream() -> RunConfig:
    """The same test rows, as a live server would have met them."""
    return datasets.stream(datasets.ctr_ml_100k(OURS, TRAIN))


def macgnn_amazon_ctr() -> RunConfig:
    """Amazon, with MovieLens's settings."""
    return datasets.ctr_amazon(MODEL.Config(), TRAIN)


def macgnn_amazon_stream() -> RunConfig:
    """The same test rows, as a live server would have met them."""
    return datasets.stream(datasets.ctr_amazon(OURS, TRAIN))


def macgnn_yelp_ctr() -> RunConfig:
    """Yelp, with MovieLens's settings."""
    return datasets.ctr_yelp(MODEL.Config(), TRAIN)


def macgnn_yelp_stream() -> RunConfig:
    """The same test rows, as a live server would have met them."""
    return datasets.stream(datasets.ctr_yelp(OURS, TRAIN))
