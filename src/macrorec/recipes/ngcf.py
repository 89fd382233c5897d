"""Recipes of NGCF: OB learns from purchases alone, MB from the pairs of any behaviour, as one graph."""

from __future__ import annotations

from dataclasses import replace

from macrorec.models.ngcf import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig
from macrorec.train.trainer import TrainConfig

SPACE = {
    "model.dim": [32, 64, 128],
    "model.dropout": [0.0, 0.1, 0.3, 0.5],
    "model.init_std": [0.03, 0.1],
    "model.l2": {"low": 1e-6, "high": 1e-1, "log": True},
    "model.matrix": ["plain", "released"],
    "train.lr": {"low": 1e-4, "high": 1e-2, "log": True},
}


TRAIN = TrainConfig(epochs=300, batch_size=8192, lr=7.72e-3, monitor="hr@10", patience=6, validate_every=4)
"""A step costs what the graph costs, whatever the batch holds: an epoch is ten steps."""


FOUND = MODEL.Config(dim=64, n_negatives=4, init_std=0.03, dropout=0.3, l2=1.23e-3, matrix="released")
"""The best of 8 trials of each recipe below, and so is the learning rate."""


def ngcf_ob_taobao() -> RunConfig:
    """NGCF on purchases alone."""
    return datasets.taobao(FOUND, TRAIN)


def ngcf_mb_taobao() -> RunConfig:
    """NGCF on views, carts and purchases as edges of one kind; learned by purchases."""
    return datasets.taobao(replace(FOUND, graph="union"), TRAIN)
