"""Recipes of MBGCN."""

from __future__ import annotations

from macrorec.models.mbgcn import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig
from macrorec.train.trainer import TrainConfig

SPACE = {
    "model.relevance": [0.0, 0.1, 0.3, 1.0],
    "model.node_dropout": [0.0, 0.2, 0.5],
    "model.message_dropout": [0.0, 0.2, 0.5],
    "model.l2": {"low": 1e-6, "high": 1e-1, "log": True},
    "train.lr": {"low": 1e-4, "high": 1e-2, "log": True},
}


def stopped_by(metric: str, *, epochs: int = 1000, every: int = 2, lr: float = 5e-3) -> TrainConfig:
    """Adam; stops after ten validations without a better ``metric``."""
    return TrainConfig(epochs=epochs, batch_size=2048, lr=lr, monitor=metric, patience=10, validate_every=every)


def mbgcn_taobao() -> RunConfig:
    """MBGCN on views, carts and purchases; with less dropout it overfits after ten epochs."""
    model = MODEL.Config(n_negatives=4, relevance=0.1, l2=1e-2, node_dropout=0.5, message_dropout=0.5)
    return datasets.taobao(model, stopped_by("hr@10"))
