"""Which losses do models share? The first line of each docstring is its formula with its normalisation.

Shape letters: B examples of the batch, N negatives per example, D embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus


def bpr(pos_B: Tensor, neg_BN: Tensor) -> Tensor:
    """1/(B N) sum_b sum_n -ln sigmoid(pos_b - neg_bn)   (Rendle et al. 2009, BPR-Opt, without its regulariser).

    ``pos_B`` (B,) and ``neg_BN`` (B, N), or (B,) for one negative, are scores; the result is a scalar.
    """
    return softplus(neg_BN.view(len(pos_B), -1) - pos_B[:, None]).mean()


def bce(score_B: Tensor, label_B: Tensor) -> Tensor:
    """1/B sum_b -[ y_b ln sigmoid(s_b) + (1 - y_b) ln(1 - sigmoid(s_b)) ]   (log loss; ``score_B`` are logits)."""
    return binary_cross_entropy_with_logits(score_B, label_B)


def hinge(pos_B: Tensor, neg_BN: Tensor, margin: float = 1.0) -> Tensor:
    """1/(B N) sum_b sum_n max(0, margin + neg_bn - pos_b)."""
    return torch.relu(margin + neg_BN.view(len(pos_B), -1) - pos_B[:, None]).mean()


def squared(score_B: Tensor, label_B: Tensor) -> Tensor:
    """1/B sum_b (s_b - y_b)^2."""
    return (score_B - label_B).square().mean()


def l2_rows(*rows_BD: Tensor) -> Tensor:
    """1/(2B) sum over all given arrays of |rows|^2, B the rows of the first   (LightGCN's authors' code).

    Give the layer-0 rows of the batch, repeats included: users (B, D), positives (B, D), negatives (B N, D).
    """
    return torch.stack([rows.square().sum() for rows in rows_BD]).sum() / (2 * len(rows_BD[0]))
