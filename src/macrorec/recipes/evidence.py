"""Recipes of Evidence, our own model: what a user has done with an item, and what the like led to."""

from __future__ import annotations

from macrorec.models.evidence import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig
from macrorec.train.trainer import TrainConfig

SPACE = {
    "model.n_sampled": [64, 256],
    "model.prior": {"low": 2.0, "high": 50.0, "log": True},
    "model.shrinkage": {"low": 1.0, "high": 30.0, "log": True},
    "train.lr": {"low": 5e-4, "high": 2e-2, "log": True},
    "train.weight_decay": {"low": 1e-7, "high": 1e-3, "log": True},
}

ABLATIONS = (
    'model.without=["edge"]',
    'model.without=["rate"]',
    'model.without=["degree", "bought"]',
    'model.without=["habit"]',
    'model.without=["choice", "purchases"]',
    'model.without=["led"]',
    'model.without=["alike"]',
    'model.without=["alike-bought"]',
    'model.without=["together"]',
    "model.hidden=[]",
)
"""What ``macrorec reproduce --ablations`` takes away, one by one; without hidden layers the network is linear."""

SWEEPS = {"model.discovery": "0,0.5,1,1.5,2,3"}
"""How much the user's own items lose where others are moved up."""

TRAIN = TrainConfig(epochs=20, batch_size=512, lr=2e-3, monitor="ndcg@10", patience=4, validate_every=2)


def evidence_taobao() -> RunConfig:
    """No published value; to be compared with Retarget's HR@10 .341, NDCG@10 .171."""
    return datasets.taobao(MODEL.Config(), TRAIN)


def evidence_taobao_extra() -> RunConfig:
    """The same with one more view and cart per user."""
    return datasets.taobao(MODEL.Config(), TRAIN, extra=True)


def evidence_market() -> RunConfig:
    """The synthetic market."""
    return datasets.market(MODEL.Config(), TRAIN)
