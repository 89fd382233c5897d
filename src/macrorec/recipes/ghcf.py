"""Recipes of GHCF, at the paper's settings for Taobao where validation does not prefer others."""

from __future__ import annotations

from macrorec.models.ghcf import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig
from macrorec.train.trainer import TrainConfig

SPACE = {
    "model.coefficients": [[1 / 6, 4 / 6, 1 / 6], [1 / 6, 1 / 6, 4 / 6], [1 / 3, 1 / 3, 1 / 3]],
    "model.negative_weight": {"low": 0.01, "high": 0.5, "log": True},
    "model.l2": {"low": 1e-4, "high": 1.0, "log": True},
    "model.dim": [32, 64, 128],
    "model.dropout": [0.0, 0.2, 0.5],
    "model.n_layers": [2, 3, 4],
    "train.lr": {"low": 5e-4, "high": 1e-2, "log": True},
}


def ghcf_taobao() -> RunConfig:
    """HR@10 .0688, NDCG@10 .0397, as published beside MB-CGCN. The best of 8 trials of 100 epochs.

    Purchases weigh most, as valid prefers; and so it does 128 dimensions, the most that were tried: HR@10 .128 there,
    where the best of 64 has .083 and of 32 .051.
    """
    model = MODEL.Config(
        dim=128, coefficients=(1 / 6, 1 / 6, 4 / 6), negative_weight=0.0843, l2=4.95e-3, dropout=0.0, n_layers=4
    )
    train = TrainConfig(epochs=100, batch_size=512, lr=6.19e-4, monitor="hr@10", patience=4, validate_every=5)
    return datasets.taobao(model, train)
