"""Recipes of MacGNN on clicks. Settings: the best of 15 trials on valid (``macrorec tune``), rounded."""

from __future__ import annotations

from dataclasses import replace

from macrorec.graph.groups import ByFile, ByKMeans, Grouping
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

ABLATIONS = (
    "model.attention=released",
    "model.macro_weights=false",
    "model.temperature=false",
    "model.recents=false",
    "model.hop2=false",
    "model.item_side=false",
    "model.mask_empty=true",
)
"""What ``macrorec reproduce --ablations`` takes away, one by one."""

TRAIN = TrainConfig(epochs=20, batch_size=1024, lr=1e-2, weight_decay=5e-5, monitor="auc", patience=2)
SNAPSHOT = replace(TRAIN, epochs=30, patience=6)
"""Under the snapshot, valid may stand still for several epochs before it rises again."""


def macgnn_ml_100k_ctr() -> RunConfig:
    """MovieLens 100K, as the paper splits it: authors' code .668 to .672 on warm impressions, selected on valid."""
    return datasets.ctr_ml_100k(
        MODEL.Config(volumes=True, normalise=True, bias=True, own_group=True, dim=10, tau=1.1, dropout=0.13),
        replace(SNAPSHOT, lr=0.0079, weight_decay=1.5e-05),
    )


def macgnn_ml_100k_stream() -> RunConfig:
    """MovieLens 100K as a stream: the same test rows, as a live server would have met them."""
    return datasets.stream(
        datasets.ctr_ml_100k(
            MODEL.Config(volumes=True, normalise=True, own_group=True, dim=10, tau=1.7, dropout=0.26),
            replace(TRAIN, lr=0.0069, weight_decay=0.005),
        )
    )


def macgnn_ml_100k_stream_kmeans() -> RunConfig:
    """The same, with items in 20 groups by k-means on who liked them in the history."""
    return of_items(ByKMeans(n=20))


def macgnn_ml_100k_stream_clusters() -> RunConfig:
    """The same, with items in the clusters of CCBIE on the history: ``macrorec run ccbie-ml-100k-history``, then
    ``macrorec clusters RUN --out ml-100k-clusters.parquet``."""
    return of_items(ByFile(path="ml-100k-clusters.parquet", join=True))


def of_items(items: Grouping) -> RunConfig:
    """``macgnn_ml_100k_stream`` with other groups of items."""
    config = macgnn_ml_100k_stream()
    assert config.features is not None
    return replace(config, features=replace(config.features, items=items))


def macgnn_amazon_ctr() -> RunConfig:
    """Amazon, as the paper splits and counts it."""
    return datasets.ctr_amazon(
        MODEL.Config(volumes=True, normalise=True, bias=True, own_group=True, dim=5, tau=0.59, dropout=0.32),
        replace(SNAPSHOT, lr=0.0016, weight_decay=0.006),
    )


def macgnn_amazon_stream() -> RunConfig:
    """Amazon as a stream: the same test rows, as a live server would have met them."""
    return datasets.stream(
        datasets.ctr_amazon(
            MODEL.Config(volumes=True, normalise=True, own_group=True, dim=10, tau=1.0, dropout=0.036),
            replace(TRAIN, lr=0.0017, weight_decay=0.00024),
        )
    )


def macgnn_yelp_ctr() -> RunConfig:
    """Yelp, as the paper splits and counts it."""
    return datasets.ctr_yelp(
        MODEL.Config(volumes=True, normalise=True, bias=True, own_group=True, dim=10, tau=1.0, dropout=0.17),
        replace(SNAPSHOT, lr=0.0038, weight_decay=4.5e-06),
    )


def macgnn_yelp_stream() -> RunConfig:
    """Yelp as a stream: the same test rows, as a live server would have met them."""
    return datasets.stream(
        datasets.ctr_yelp(
            MODEL.Config(volumes=True, normalise=True, own_group=True, dim=5, tau=0.79, dropout=0.079),
            replace(TRAIN, lr=0.0015, weight_decay=0.00042),
        )
    )
