"""Recipes of SWGCN, at the paper's settings: 32 dimensions, 3 layers, 4 negatives, batches of 2,048 samples."""

from __future__ import annotations

from dataclasses import replace

from macrorec.models.swgcn import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig
from macrorec.train.trainer import TrainConfig

SPACE = {
    "model.l2": {"low": 1e-6, "high": 1e-1, "log": True},
    "model.dropout": [0.0, 0.2, 0.5],
    "model.alignment": ["difference", "squared", "product"],
    "model.alignment_weight": [0.1, 0.5, 0.9],
    "model.self_loop": [0.2, 1.0],
    "train.lr": {"low": 1e-4, "high": 1e-2, "log": True},
}

ABLATIONS = (
    "model.alignment=none",
    "model.weigher=false",
    "model.align_target=true",
    "model.alignment=difference",
    "model.alignment=squared",
    "model.alignment=product",
)
"""Of section 5.3: without the alignment, without the weigher. Then SWGCN-T, and the readings of (15)."""

SWEEPS = {
    "model.self_loop": "0,0.2,0.4,0.6,0.8,1",
    "model.alignment_weight": "0.1,0.3,0.5,0.7,0.9",
    "model.dropout": "0,0.2,0.4,0.6,0.8",
}
"""Lambda_s of Fig. 4, lambda_a of Fig. 6, and the message dropout of Fig. 7, at every other value of theirs."""

TRAIN = TrainConfig(epochs=500, batch_size=512, lr=1e-3, monitor="hr@10", patience=10, validate_every=1)
"""A batch of 512 purchases with 4 negatives each is the paper's of 2,048 samples."""


def swgcn_taobao() -> RunConfig:
    """SWGCN on views, carts and purchases."""
    return datasets.taobao(MODEL.Config(), TRAIN)


def swgcn_t_taobao() -> RunConfig:
    """SWGCN-T: the target behaviour is aligned, too."""
    return replace(swgcn_taobao(), model=MODEL.Config(align_target=True))


def swgcn_market() -> RunConfig:
    """SWGCN on the synthetic market, where a run takes a minute."""
    return datasets.market(MODEL.Config(), replace(TRAIN, epochs=40, lr=5e-3))
