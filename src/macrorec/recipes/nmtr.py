"""Recipes of NMTR-GMF: views, carts and purchases, 4 negatives each."""

from __future__ import annotations

from macrorec.models.nmtr import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig
from macrorec.train.trainer import TrainConfig

SPACE = {
    "model.dim": [32, 64, 128],
    "model.mean": ["rows", "behaviors"],
    "model.l2": {"low": 1e-6, "high": 1e-1, "log": True},
    "train.lr": {"low": 1e-3, "high": 3e-2, "log": True},
}


def nmtr_taobao() -> RunConfig:
    """HR@10 .0195, NDCG@10 .0086 as published beside MB-CGCN. Size, penalty and rate were found on valid."""
    train = TrainConfig(epochs=200, batch_size=2048, lr=2.33e-2, monitor="hr@10", patience=10, validate_every=1)
    return datasets.taobao(MODEL.Config(dim=64, l2=6.92e-4), train)
