"""Which loops go over the edges of a behaviour? Compiled ones on the CPU, torch in blocks elsewhere; outside autograd.

Shape letters: U users, I items, N = U + I nodes, E edges, F = 2 E entries, D embedding, K chosen nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import elu

from macrorec.ops.adjacency import Adjacency
from macrorec.ops.gather import Side, compiled, view
from macrorec.ops.spmm import inner_product, product
from macrorec.ops.threads import in_blocks

_AT_ONCE = 1 << 16
"""Edges whose vectors are held at once where no kernel applies."""

Drop = tuple[int, int, int, float]
"""Two keys, the threshold below which a hash means to drop, and the factor of what stays; a threshold of 0 is none."""
NO_DROP: Drop = (0, 0, 0, 1.0)


def weigh(adjacency: Adjacency, x_ND: Tensor, beta_D: Tensor, hidden_E: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, weights and distances of edges, (E,) each; ``hidden_E`` is bool, or empty where no edge is hidden."""
    if compiled(x_ND):
        from macrorec.ops import edge_kernels

        inputs = [*map(view, (adjacency.start_N, adjacency.node_F, x_ND, beta_D, hidden_E))]
        outputs = [np.empty(len(adjacency), inputs[2].dtype) for _ in range(3)]
        _over_users(adjacency, edge_kernels.weigh, [*inputs, *outputs], x_ND.shape[1])
        logit_E, weight_E, distance_E = map(torch.from_numpy, outputs)
        return logit_E, weight_E, distance_E
    user_E, item_E = adjacency.user_E(), adjacency.node_F[: len(adjacency)]
    logit_E, distance_E = x_ND.new_empty(len(adjacency)), x_ND.new_empty(len(adjacency))
    for here in _blocks(len(adjacency)):
        apart_ED = x_ND[user_E[here]] - x_ND[item_E[here]]
        logit_E[here], distance_E[here] = elu(apart_ED.abs() @ beta_D), apart_ED.square().sum(1)
    seen_E = logit_E.masked_fill(hidden_E, -torch.inf) if len(hidden_E) else logit_E
    highest_U = logit_E.new_full((adjacency.n_users,), -1.0).scatter_reduce_(0, user_E, seen_E, "amax")
    weight_E = (seen_E - highest_U[user_E]).exp()
    total_U = _sum_by_user(adjacency, weight_E).clamp(min=torch.finfo(x_ND.dtype).tiny)
    return logit_E, weight_E / total_U[user_E], distance_E


def weigh_back(
    adjacency: Adjacency,
    x_ND: Tensor,
    beta_D: Tensor,
    logit_E: Tensor,
    weight_E: Tensor,
    grad_weight_E: Tensor,
    grad_distance_E: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of x and beta from those of weights and distances."""
    if compiled(x_ND):
        from macrorec.ops import edge_kernels

        start, node, x, beta, *others = map(
            view, (adjacency.start_N, adjacency.node_F, x_ND, beta_D, logit_E, weight_E, grad_weight_E, grad_distance_E)
        )
        width, n_users = x.shape[1], adjacency.n_users
        slope, grad, grad_beta = (np.empty(n, x.dtype) for n in (len(adjacency), x.shape, (n_users, width)))
        args = [start, node, x, beta, *others, slope, grad, grad_beta]
        _over_users(adjacency, edge_kernels.weigh_back_users, args, width)
        by_item = [view(torch.from_numpy(a).index_select(0, adjacency.order_E)) for a in (slope, others[-1])]
        rest = [start, node, *by_item, x, beta, grad, np.int64(n_users)]
        _run(edge_kernels.weigh_back_items, rest, start[n_users:] - start[n_users], width)
        return torch.from_numpy(grad), torch.from_numpy(grad_beta).sum(0)
    user_E, item_E = adjacency.user_E(), adjacency.node_F[: len(adjacency)]
    mean_U = _sum_by_user(adjacency, weight_E * grad_weight_E)
    slope_E = weight_E * (grad_weight_E - mean_U[user_E]) * torch.where(logit_E > 0, 1, logit_E + 1)
    grad_ND, grad_D = torch.zeros_like(x_ND), torch.zeros_like(beta_D)
    for here in _blocks(len(adjacency)):
        apart_ED = x_ND[user_E[here]] - x_ND[item_E[here]]
        flow_ED = slope_E[here, None] * beta_D * apart_ED.sign() + 2 * grad_distance_E[here, None] * apart_ED
        grad_ND.index_add_(0, user_E[here], flow_ED).index_add_(0, item_E[here], flow_ED, alpha=-1)
        grad_D += slope_E[here] @ apart_ED.abs()
    return grad_ND, grad_D


def scale(adjacency: Adjacency, value_E: Tensor, factor_N: Tensor, add_N: Tensor | None = None) -> Tensor:
    """value_e factor_u factor_i, plus add_u + add_i."""
    if compiled(value_E):
        from macrorec.ops import edge_kernels

        start, node, value, factor = map(view, (adjacency.start_N, adjacency.node_F, value_E, factor_N))
        add, out = factor[:0] if add_N is None else view(add_N), np.empty_like(value)
        _over_users(adjacency, edge_kernels.scale, [start, node, value, factor, add, out], 1)
        return torch.from_numpy(out)
    user_E, item_E = adjacency.user_E(), adjacency.node_F[: len(adjacency)]
    out_E = value_E * (factor_N[user_E] * factor_N[item_E])
    return out_E if add_N is None else out_E + add_N[user_E] + add_N[item_E]


def spread(side: Side, own_N: Tensor, x_ND: Tensor, rows_K: Tensor | None, drop: Drop) -> Tensor:
    """own x + A x and dropout; all rows or ``rows_K``."""
    if compiled(x_ND):
        from macrorec.ops import gather_kernels

        start, node, value, own, x = map(view, (*side, own_N, x_ND))
        rows, cost = np.empty(0, np.int64), start
        if rows_K is not None:
            rows = view(rows_K)
            cost = np.concatenate([[0], np.cumsum(start[rows + 1] - start[rows])])
        out = np.empty((len(cost) - 1, x.shape[1]), x.dtype)
        _run(gather_kernels.spread, [start, node, value, own, x, rows, drop, out], cost, x.shape[1])
        return torch.from_numpy(out)
    y_ND = own_N[:, None] * x_ND + product(side, x_ND)
    if rows_K is None:
        return dropped(y_ND, torch.arange(len(y_ND), device=y_ND.device), drop)
    return dropped(y_ND[rows_K], rows_K, drop)


def spread_back(
    side: Side,
    own_N: Tensor,
    x_ND: Tensor,
    grad_ND: Tensor,
    add_KD: Tensor,
    place_N: Tensor,
    drop: Drop,
    grad_value_F: Tensor,
    grad_own_N: Tensor,
) -> Tensor:
    """The gradient of x before its dropout; adds to those of values and diagonal. ``add_KD`` joins at its places."""
    if compiled(x_ND):
        from macrorec.ops import gather_kernels

        start, *others = map(view, (*side, own_N, x_ND, grad_ND, add_KD, place_N))
        out = np.empty(x_ND.shape, others[3].dtype)
        args = [start, *others, drop, out, view(grad_value_F), view(grad_own_N)]
        _run(gather_kernels.spread_back, args, start, 2 * x_ND.shape[1])
        return torch.from_numpy(out)
    grad_own_N += (x_ND * grad_ND).sum(1)
    grad_value_F += inner_product(side, x_ND, grad_ND)
    out_ND = own_N[:, None] * grad_ND + product(side, grad_ND)
    if len(add_KD):
        out_ND += torch.where(place_N[:, None] >= 0, add_KD[place_N.clamp(min=0)], 0)
    return dropped(out_ND, torch.arange(len(out_ND), device=out_ND.device), drop)


def dropped(x_KD: Tensor, rows_K: Tensor, drop: Drop) -> Tensor:
    """The rows ``rows_K`` of a table after dropout."""
    if not drop[2]:
        return x_KD
    if compiled(x_KD):
        from macrorec.ops import gather_kernels

        out = view(x_KD).copy()
        gather_kernels.drop_rows(out, view(rows_K), drop)
        return torch.from_numpy(out)
    return x_KD * kept(drop, rows_K, x_KD.shape[1]) * drop[3]


def kept(drop: Drop, rows_K: Tensor, width: int) -> Tensor:
    """Which entries of the rows ``rows_K`` of a table stay, bool (K, width)."""
    bits = 0xFFFFFFFF
    h = (rows_K[:, None] * width + torch.arange(width, device=rows_K.device)) & bits
    for key in drop[:2]:
        h ^= key
        h = (h ^ h >> 16) * 0x85EBCA6B & bits
        h = (h ^ h >> 13) * 0xC2B2AE35 & bits
        h ^= h >> 16
    return h >= drop[2]


def drop_of(seed: int, share: float) -> Drop:
    """Dropout of ``share``, decided by a 64-bit ``seed``."""
    return seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF, int(share * (1 << 32)), 1 / (1 - share)


def _sum_by_user(adjacency: Adjacency, value_E: Tensor) -> Tensor:
    start_U, item_E = adjacency.start_N[: adjacency.n_users + 1], adjacency.node_F[: len(adjacency)]
    return product((start_U, item_E, value_E), value_E.new_ones(adjacency.n_nodes, 1)).squeeze(1)


def _over_users(adjacency: Adjacency, kernel: Any, args: Sequence[Any], width: int) -> None:
    _run(kernel, args, view(adjacency.start_N[: adjacency.n_users + 1]), width)


def _run(kernel: Any, args: Sequence[Any], cost: npt.NDArray[Any], width: int) -> None:
    in_blocks(lambda lo, hi: kernel(*args, lo, hi), cost, width)


def _blocks(n: int) -> Iterator[slice]:
    return (slice(first, first + _AT_ONCE) for first in range(0, n, _AT_ONCE))
