"""What does a perceptron say of every pair of a user and an item? Its first layer is split, the rest goes by blocks.

Shape letters: B users, I items, D length of a vector, H width of a layer, T tiles of W items.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from macrorec.ops.mlp import MLP
from macrorec.ops.threads import in_blocks

_PAIRS_AT_ONCE = 1 << 13
"""Pairs whose hidden units torch holds at once: with 32 of them, 1 MiB, which stays in a cache."""


def mlp_of_pairs(mlp: MLP, users_BD: Tensor, items_ID: Tensor) -> Tensor:
    """MLP([p; q]) for every user vector p and item vector q, shape (B, I), as in evaluation.

    W [p; q] + b = (W_p p + b) + W_q q: the first layer costs an addition per pair instead of 2 D multiplications. On
    the CPU the rest is a compiled loop, which takes a third of torch's time.
    """
    first, dim = mlp.layers[0], users_BD.shape[1]
    assert isinstance(first, nn.Linear)
    of_user_BH = linear(users_BD, first.weight[:, :dim], first.bias)
    of_item_IH = linear(items_ID, first.weight[:, dim:])
    if not _compiled(mlp, of_user_BH):
        return by_torch(mlp, of_user_BH, of_item_IH)
    from macrorec.ops.pair_kernels import WIDTH, relu_of_pairs

    n_users, n_items = len(users_BD), len(items_ID)
    padded_IH = pad(of_item_IH, (0, 0, 0, -n_items % WIDTH))
    tiles_THW = padded_IH.view(-1, WIDTH, padded_IH.shape[1]).transpose(1, 2).contiguous().numpy()
    widths_L = np.array([layer.out_features for layer in mlp.layers])
    numbers_F = torch.cat([x.flatten() for layer in [*mlp.layers][1:] for x in (layer.weight, layer.bias)]).numpy()
    users, out_BI = of_user_BH.contiguous().numpy(), np.empty((n_users, n_items), np.float32)

    def some(lo: int, hi: int) -> None:
        relu_of_pairs(users, tiles_THW, widths_L, numbers_F, out_BI, lo, hi)

    in_blocks(some, n_items * np.arange(n_users + 1), int(widths_L.sum()))
    return torch.from_numpy(out_BI)


def _compiled(mlp: MLP, of_user_BH: Tensor) -> bool:
    plain = of_user_BH.device.type == "cpu" and of_user_BH.dtype == torch.float32 and not of_user_BH.requires_grad
    return plain and bool(mlp.gates) and all(isinstance(gate, nn.ReLU) for gate in mlp.gates)


def by_torch(mlp: MLP, of_user_BH: Tensor, of_item_IH: Tensor) -> Tensor:
    """The same from both parts of the first layer, for other devices, numbers and gates, and with gradients."""
    out_BI = of_user_BH.new_empty(len(of_user_BH), len(of_item_IH))
    width = max(1, min(len(of_item_IH), _PAIRS_AT_ONCE))
    height = _PAIRS_AT_ONCE // width
    for top in range(0, len(of_user_BH), height):
        for left in range(0, len(of_item_IH), width):
            rows, columns = slice(top, top + height), slice(left, left + width)
            x_BIH = of_user_BH[rows, None] + of_item_IH[columns]
            out_BI[rows, columns] = mlp.after_first(x_BIH.flatten(0, 1)).view(x_BIH.shape[:2])
    return out_BI
