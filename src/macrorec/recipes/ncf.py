"""Recipes of NCF in its three kinds, GMF, MLP and NeuMF: purchases alone, 4 negatives each."""

from __future__ import annotations

from dataclasses import replace

from macrorec.models.ncf import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig
from macrorec.train.trainer import TrainConfig

SPACE = {
    "model.dim": [32, 64, 128],
    "model.dropout": [0.0, 0.2, 0.5],
    "model.l2": {"low": 1e-6, "high": 1e-1, "log": True},
    "train.lr": {"low": 1e-4, "high": 1e-2, "log": True},
}

TRAIN = TrainConfig(epochs=500, batch_size=512, lr=1e-3, monitor="hr@10", patience=10, validate_every=1)
"""A batch holds 512 purchases and the 2,048 negatives to them."""

SELDOM = replace(TRAIN, patience=4, validate_every=5)
"""Ranking all items for all users by a perceptron takes longer than an epoch: validated after every fifth."""


def ncf_gmf_taobao() -> RunConfig:
    """The weighted inner product of two vectors: the best of 8 trials."""
    return datasets.taobao(MODEL.Config(kind="gmf", dim=128, dropout=0.5, l2=1.13e-5), replace(TRAIN, lr=1.81e-4))


def ncf_mlp_taobao() -> RunConfig:
    """A perceptron over two vectors: the best of 8 trials, all of which end where popularity does."""
    return datasets.taobao(MODEL.Config(kind="mlp", dim=128, dropout=0.2, l2=1.11e-5), replace(SELDOM, lr=2.1e-4))


def ncf_neumf_taobao() -> RunConfig:
    """Both, on vectors of their own: the best of 8 trials."""
    return datasets.taobao(MODEL.Config(kind="neumf", dim=128, dropout=0.5, l2=1.13e-5), replace(SELDOM, lr=1.81e-4))
