"""Recipes of SWGCN: 4 negatives as in the paper; its size and the rest as printed, or as valid prefers."""

from __future__ import annotations

from dataclasses import replace

from macrorec.models.swgcn import MODEL
from macrorec.recipes import datasets
from macrorec.run import RunConfig
from macrorec.train.trainer import TrainConfig

SPACE = {
    "model.dim": [128, 256, 512],
    "model.n_layers": [1, 2, 3],
    "model.self_loop": [0.5, 1.0, 2.0, 4.0, 8.0],
    "model.alignment": ["difference", "squared", "product"],
    "model.alignment_weight": [0.1, 0.3, 0.5, 0.7, 0.9],
    "model.dropout": [0.0, 0.2, 0.4],
    "model.l2": {"low": 1e-6, "high": 1e-2, "log": True},
    "train.lr": {"low": 5e-4, "high": 5e-3, "log": True},
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

PRINTED = TrainConfig(epochs=500, batch_size=512, lr=1e-3, monitor="hr@10", patience=50, validate_every=1)
"""A batch of 512 purchases with 4 negatives each is the paper's of 2,048 samples."""
FOUND = replace(PRINTED, epochs=40, batch_size=8192, lr=5e-3, patience=4)
"""A step costs what the graph costs, whatever the batch holds: an epoch is ten steps of 8,192 purchases."""
AVERAGED = replace(FOUND, epochs=60, average=0.97)
"""Of the mean of the weights over about three epochs, HR@10 on valid was .0667 where the weights' own was .0636."""
SMALL = MODEL.Config(
    alignment="product",
    alignment_weight=0.5,
    valuator_l2=0.0,
    l2=1e-4,
    l2_of="batch",
    dropout=0.4,
    init="normal",
    shared_start=True,
)
"""What valid preferred at the paper's 32 dimensions and 3 layers: HR@10 .035 after 37 epochs.

Dropout of .6 in place of .4 gave .024 after 21 epochs; ``hide_positives`` made no difference. Without ``shared_start``,
or with the mean of all layers, trials ended between .015 and .026, and with one layer at .026.
"""
FREE = replace(SMALL, dim=256, n_layers=4)
"""32 dimensions hold too little of what a user has met. HR@10 on valid, one seed each: 128 dimensions .051, with 4
layers .057, with 5 .052; 256 dimensions with 3 layers .058, with 4 and half the rate .064. There, 16 negatives gave
.062, dropout of .2 .050 and of .6 .033.
"""


SPECTRAL = replace(
    SMALL,
    dim=512,
    n_layers=1,
    self_loop=4.0,
    alignment_weight=0.1,
    dropout=0.0,
    l2=0.0,
    init="spectral",
    value_init="zero",
    hide_positives=True,
)
"""Singular vectors of the joint graph hold what users have met before any training; one layer forgets least of it.

HR@10 on valid, one seed each. At 256 dimensions after 8 epochs: self loops of 1 .161, of 4 .164; there a rate of 2e-3
.169, of 4e-3 .167; the alignment as a product of half the loss .165, as a square .128; without the weigher .165;
dropout of .3 .159 for .161. At 512 dimensions after 13 epochs: .247, without the alignment .248, with self loops of 1
.242; with twice the rate and an alignment of half the loss it fell from .227 after five.
"""
PATIENT = replace(FOUND, epochs=30, lr=1e-3)


def swgcn_taobao() -> RunConfig:
    """SWGCN on views, carts and purchases, from singular vectors, at the settings that valid prefers."""
    return datasets.taobao(SPECTRAL, PATIENT)


def swgcn_128_taobao() -> RunConfig:
    """The same with vectors of 128 numbers, the most that other models of the comparison were given."""
    return datasets.taobao(replace(SPECTRAL, dim=128), PATIENT)


def swgcn_free_taobao() -> RunConfig:
    """SWGCN from normal vectors, as in the paper, at the settings that valid prefers for such a start."""
    return datasets.taobao(FREE, AVERAGED)


def swgcn_small_taobao() -> RunConfig:
    """SWGCN at the paper's size: 32 dimensions, 3 layers."""
    return datasets.taobao(SMALL, replace(FOUND, lr=1e-2, patience=8))


def swgcn_printed_taobao() -> RunConfig:
    """SWGCN at the paper's settings, patience included."""
    return datasets.taobao(MODEL.Config(), PRINTED)


def swgcn_t_taobao() -> RunConfig:
    """SWGCN-T: the target behaviour is aligned, too."""
    return replace(swgcn_taobao(), model=replace(SPECTRAL, align_target=True))


def swgcn_market() -> RunConfig:
    """SWGCN on the synthetic market, where a run takes a minute."""
    return datasets.market(MODEL.Config(), replace(PRINTED, epochs=40, lr=5e-3, patience=10))
