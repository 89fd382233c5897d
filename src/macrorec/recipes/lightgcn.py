"""Recipes of LightGCN, at the paper's settings: 64 dimensions, 3 layers, batches of 2,048."""

from __future__ import annotations

from dataclasses import replace

from macrorec.models.lightgcn import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig
from macrorec.train.trainer import TrainConfig

SPACE = {
    "model.dim": [32, 64, 128],
    "model.l2": {"low": 1e-6, "high": 1e-1, "log": True},
    "model.n_layers": [1, 2, 3, 4],
    "train.lr": {"low": 1e-4, "high": 1e-2, "log": True},
}


BIG = TrainConfig(epochs=300, batch_size=8192, lr=5e-3, monitor="hr@10", patience=6, validate_every=4)
"""On Taobao a step costs what the graph costs, whatever the batch holds: an epoch is ten steps."""


def stopped_by(
    metric: str, *, epochs: int = 1000, every: int = 5, batch_size: int = 2048, lr: float = 1e-3
) -> TrainConfig:
    """Adam; stops after ten validations without a better ``metric``."""
    return TrainConfig(epochs=epochs, batch_size=batch_size, lr=lr, monitor=metric, patience=10, validate_every=every)


def lightgcn_ml_100k_u1() -> RunConfig:
    """N@10 .5296, R@10 .1802 in CCBIE, Table II."""
    return datasets.ml_100k_u1(MODEL.Config(), stopped_by("ndcg@10"))


def lightgcn_ml_100k() -> RunConfig:
    """The last of every user's ratings, by LightGCN."""
    return datasets.ml_100k(MODEL.Config(), stopped_by("ndcg@10"))


def lightgcn_gowalla() -> RunConfig:
    """R@20 .1830, N@20 .1554 (He et al. 2020, Table 3). No valid, and 1,000 epochs, as published."""
    return datasets.as_published(datasets.gowalla(MODEL.Config(), stopped_by("ndcg@20")))


def lightgcn_taobao() -> RunConfig:
    """LightGCN on purchases alone: HR@10 .0411, NDCG@10 .0240 as published beside MB-CGCN."""
    return datasets.taobao(MODEL.Config(dim=128, l2=2.57e-3), replace(BIG, lr=2.16e-3))


def lightgcn_mb_taobao() -> RunConfig:
    """LightGCN on views, carts and purchases as edges of one kind; learned by purchases. The best of 8 trials."""
    return datasets.taobao(MODEL.Config(graph="union", dim=128, l2=1.85e-5, n_layers=1), replace(BIG, lr=2.05e-3))


def lightgcn_dblp() -> RunConfig:
    """N@10 .3007, R@10 .3461 in CCBIE, Table II."""
    return datasets.dblp(MODEL.Config(), stopped_by("ndcg@10", batch_size=512))


def lightgcn_market() -> RunConfig:
    """LightGCN on the synthetic market; the learning rate was chosen on valid."""
    return datasets.market(MODEL.Config(), stopped_by("ndcg@10", epochs=100, lr=5e-3))


def lightgcn_wikipedia() -> RunConfig:
    """AUC-ROC .9553, AUC-PR .9644 in CCBIE, Table III."""
    return datasets.wikipedia(MODEL.Config(), stopped_by("auc_roc", batch_size=512))


def lightgcn_yelp() -> RunConfig:
    """AUC-ROC .8266, AUC-PR .8383 in CCBIE, Table III."""
    return datasets.yelp(MODEL.Config(), stopped_by("auc_roc"))
