"""Recipes of CCBIE: 64 dimensions, batches of 256 edges as in the paper; what it does not give is chosen on valid."""

from __future__ import annotations

from dataclasses import replace

from macrorec.models.ccbie import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig
from macrorec.train.trainer import TrainConfig

SPACE = {
    "model.n_clusters": [8, 16, 24, 32],
    "model.hidden": [32, 48, 64],
    "model.n_preferences": [4, 8],
    "model.n_negatives": [1, 2, 4],
    "model.alpha": [0.3, 0.5, 0.7, 0.9],
    "model.beta": {"low": 1e-4, "high": 1e-1, "log": True},
    "model.activation": ["relu", "tanh", "sigmoid", "none"],
    "train.lr": {"low": 5e-4, "high": 1e-2, "log": True},
    "train.weight_decay": {"low": 1e-7, "high": 1e-3, "log": True},
}

ABLATIONS = (
    "model.variant=explicit",
    "model.variant=implicit",
    "model.variant=no-mlp",
    "model.variant=softmax",
    "model.spread=raw",
    "model.beta=0",
)
"""CCBIE_E, _I, _M and _S of Fig. 6; then (11) as printed, of centres of any length, and none of it."""

SWEEPS = {
    "model.alpha": "0.1,0.3,0.5,0.7,0.9",
    "model.beta": "0,0.0005,0.005,0.05,0.5",
    "model.dim": "32,64,128,256",
}
"""Of Fig. 7. No dimension below K_h, as the paper has it. Fig. 5 is ``benchmarks.ccbie_scale``; a curve over epochs is
kept by every run that watches valid, and those of one data set stand in one plot."""

PRINTED = TrainConfig(epochs=300, batch_size=256, lr=2e-3, monitor="ndcg@10", patience=10, validate_every=5)
"""Adam, batch and learning rate of section V-A; it says nothing of when to stop."""


def ccbie_ml_100k_u1() -> RunConfig:
    """N@10 .5488, R@10 .1852, N@3 .6274 in CCBIE, Table II."""
    return datasets.ml_100k_u1(MODEL.Config(n_negatives=2), PRINTED)


def ccbie_dblp() -> RunConfig:
    """N@10 .3599, R@10 .4484, N@3 .3274 in CCBIE, Table II."""
    return datasets.dblp(MODEL.Config(n_negatives=2), PRINTED)


def ccbie_ml_100k() -> RunConfig:
    """The last of every user's ratings, by CCBIE."""
    return datasets.ml_100k(MODEL.Config(n_negatives=2), PRINTED)


def ccbie_gowalla() -> RunConfig:
    """CCBIE on LightGCN's split of Gowalla."""
    return datasets.gowalla(MODEL.Config(n_negatives=2), replace(PRINTED, monitor="ndcg@20", batch_size=2048))


def ccbie_taobao() -> RunConfig:
    """CCBIE on purchases alone."""
    return datasets.taobao(MODEL.Config(n_negatives=2), PRINTED)


def ccbie_market() -> RunConfig:
    """CCBIE on the synthetic market."""
    return datasets.market(MODEL.Config(n_negatives=2), replace(PRINTED, epochs=100))


def ccbie_wikipedia() -> RunConfig:
    """AUC-ROC .9696, AUC-PR .9728 in CCBIE, Table III; alpha .1 as there. Valid is best after few epochs."""
    return datasets.wikipedia(
        MODEL.Config(alpha=0.1, n_negatives=1), replace(PRINTED, monitor="auc_roc", validate_every=1)
    )


def ccbie_yelp() -> RunConfig:
    """AUC-ROC .8675, AUC-PR .8781 in CCBIE, Table III; alpha .1 as there."""
    return datasets.yelp(MODEL.Config(alpha=0.1, n_negatives=1), replace(PRINTED, monitor="auc_roc"))


def ccbie_ml_100k_history() -> RunConfig:
    """Clusters of the likes that a stream of MovieLens 100K has as history, for groups of its items."""
    return datasets.history_ml_100k(MODEL.Config(n_negatives=2, n_preferences=20), PRINTED)
