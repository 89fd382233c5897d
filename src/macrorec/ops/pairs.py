"""What does a perceptron say of every pair of a user and an item? Its first layer is split, the rest goes by blocks.

Shape letters: B users, I items, D length of a vector, H width of a layer.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import linear

from macrorec.ops.mlp import MLP

_PAIRS_AT_ONCE = 1 << 13
"""Pairs whose hidden units are held at once: with 32 of them, 1 MiB, which stays in a cache."""


def mlp_of_pairs(mlp: MLP, users_BD: Tensor, items_ID: Tensor) -> Tensor:
    """MLP([p; q]) for every user vector p and item vector q, shape (B, I), as in evaluation.

    W [p; q] + b = (W_p p + b) + W_q q: the first layer costs an addition per pair instead of 2 D multiplications.
    """
    first, dim = mlp.layers[0], users_BD.shape[1]
    assert isinstance(first, nn.Linear)
    of_user_BH = linear(users_BD, first.weight[:, :dim], first.bias)
    of_item_IH = linear(items_ID, first.weight[:, dim:])
    out_BI = users_BD.new_empty(len(users_BD), len(items_ID))
    width = max(1, min(len(items_ID), _PAIRS_AT_ONCE))
    height = _PAIRS_AT_ONCE // width
    for top in range(0, len(users_BD), height):
        for left in range(0, len(items_ID), width):
            rows, columns = slice(top, top + height), slice(left, left + width)
            x_BIH = of_user_BH[rows, None] + of_item_IH[columns]
            out_BI[rows, columns] = mlp.after_first(x_BIH.flatten(0, 1)).view(x_BIH.shape[:2])
    return out_BI
