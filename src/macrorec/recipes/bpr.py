"""Recipes of BPR-MF."""

from __future__ import annotations

from macrorec.models.bpr import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig
from macrorec.train.trainer import TrainConfig

SPACE = {
    "model.dim": [32, 64, 128],
    "model.l2": {"low": 1e-6, "high": 1e-1, "log": True},
    "train.lr": {"low": 1e-4, "high": 1e-2, "log": True},
}


def stopped_by(
    metric: str, *, epochs: int = 1000, every: int = 5, batch_size: int = 2048, lr: float = 1e-3
) -> TrainConfig:
    """Adam; stops after ten validations without a better ``metric``."""
    return TrainConfig(epochs=epochs, batch_size=batch_size, lr=lr, monitor=metric, patience=10, validate_every=every)


def bpr_ml_100k_u1() -> RunConfig:
    """Matrix factorisation on CCBIE's split of MovieLens."""
    return datasets.ml_100k_u1(MODEL.Config(), stopped_by("ndcg@10"))


def bpr_ml_100k() -> RunConfig:
    """The last of every user's ratings, by matrix factorisation."""
    return datasets.ml_100k(MODEL.Config(), stopped_by("ndcg@10"))


def bpr_gowalla() -> RunConfig:
    """R@20 .1627, N@20 .1378 as published (MF-BPR). No valid, as published."""
    return datasets.as_published(datasets.gowalla(MODEL.Config(), stopped_by("ndcg@20")))


def bpr_taobao() -> RunConfig:
    """Matrix factorisation of purchases, as eight trials on valid have it."""
    return datasets.taobao(MODEL.Config(dim=128, l2=7.78e-3), stopped_by("hr@10", lr=5.5e-3))


def bpr_dblp() -> RunConfig:
    """Matrix factorisation on DBLP."""
    return datasets.dblp(MODEL.Config(), stopped_by("ndcg@10", batch_size=512))


def bpr_market() -> RunConfig:
    """Matrix factorisation on the synthetic market; the learning rate was chosen on valid."""
    return datasets.market(MODEL.Config(), stopped_by("ndcg@10", epochs=100, lr=5e-3))


def bpr_wikipedia() -> RunConfig:
    """Links of Wikipedia, by matrix factorisation; AUC-ROC .907 on valid after 60 epochs, .871 at l2 1e-4, lr 1e-3."""
    return datasets.wikipedia(MODEL.Config(l2=0.01), stopped_by("auc_roc", batch_size=512, lr=5e-3))


def bpr_yelp() -> RunConfig:
    """Links of Yelp, by matrix factorisation."""
    return datasets.yelp(MODEL.Config(), stopped_by("auc_roc"))
