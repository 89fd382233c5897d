"""Recipes of MBGCN."""

from __future__ import annotations

from macrorec.models.mbgcn import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig
from macrorec.train.trainer import TrainConfig

SPACE = {
    "model.dim": [32, 64, 128],
    "model.relevance": [0.0, 0.1, 0.3, 1.0],
    "model.node_dropout": [0.0, 0.2, 0.5],
    "model.message_dropout": [0.0, 0.2, 0.5],
    "model.l2": {"low": 1e-6, "high": 1e-1, "log": True},
    "train.lr": {"low": 1e-4, "high": 1e-2, "log": True},
}


TRAIN = TrainConfig(epochs=300, batch_size=8192, lr=5e-3, monitor="hr@10", patience=6, validate_every=2)
"""A step costs what the graph costs, whatever the batch holds: an epoch is ten steps."""


def mbgcn_taobao() -> RunConfig:
    """MBGCN on views, carts and purchases; with less dropout it overfits after ten epochs."""
    model = MODEL.Config(n_negatives=4, relevance=0.1, l2=1e-2, node_dropout=0.5, message_dropout=0.5)
    return datasets.taobao(model, TRAIN)
