"""Recipes of NGCF: OB learns from purchases alone, MB from the pairs of any behaviour, as one graph."""

from __future__ import annotations

from macrorec.models.ngcf import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig
from macrorec.train.trainer import TrainConfig

SPACE = {
    "model.dropout": [0.0, 0.1, 0.3, 0.5],
    "model.init_std": [0.03, 0.1],
    "model.l2": {"low": 1e-6, "high": 1e-1, "log": True},
    "model.matrix": ["plain", "released"],
    "train.lr": {"low": 1e-4, "high": 1e-2, "log": True},
}


def stopped_by(metric: str, *, epochs: int = 1000, every: int = 5, lr: float = 5e-3) -> TrainConfig:
    """Adam; stops after ten validations without a better ``metric``."""
    return TrainConfig(epochs=epochs, batch_size=2048, lr=lr, monitor=metric, patience=10, validate_every=every)


def ngcf_ob_taobao() -> RunConfig:
    """NGCF on purchases alone."""
    return datasets.taobao(MODEL.Config(dim=32, n_negatives=4, init_std=0.1), stopped_by("hr@10"))


def ngcf_mb_taobao() -> RunConfig:
    """NGCF on views, carts and purchases as edges of one kind; learned by purchases."""
    model = MODEL.Config(dim=32, graph="union", n_negatives=4, init_std=0.1, l2=1e-2)
    return datasets.taobao(model, stopped_by("hr@10"))
