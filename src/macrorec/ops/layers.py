"""How do embeddings spread over a bipartite graph? Normalised adjacencies and LightGCN's mean of layers.

Shape letters: U users, I items, N = U + I nodes (item i is node U + i), E edges, L layers, D embedding, B rows of a
batch, K distinct rows among them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from macrorec.graph.bipartite import Edges
from macrorec.ops.gather import Side, compiled, distinct, gather, gather_placed, sum_rows, take_rows
from macrorec.ops.spmm import SparseMatrix, product


def normalized_adjacency(edges: Edges, n_users: int, n_items: int, self_loop: float = 0.0) -> SparseMatrix:
    """D^-1/2 (A + s I) D^-1/2, shape (N, N), with A the unweighted bipartite adjacency and D its row sums, s included.

    Isolated nodes have an empty row (or, with self-loops, a one on the diagonal).
    """
    user_E, item_E = edges.user_E, edges.item_E + n_users
    n_nodes = n_users + n_items
    row, col = torch.cat([user_E, item_E]), torch.cat([item_E, user_E])
    value = torch.ones(len(row), dtype=torch.float64)
    if self_loop:
        node = torch.arange(n_nodes)
        row, col = torch.cat([row, node]), torch.cat([col, node])
        value = torch.cat([value, torch.full((n_nodes,), self_loop, dtype=torch.float64)])
    degree = torch.zeros(n_nodes, dtype=torch.float64).index_add_(0, row, value)
    scale = degree.rsqrt()
    return SparseMatrix(row, col, (value * (scale[row] * scale[col])).float(), (n_nodes, n_nodes))


def mean_adjacency(edges: Edges, n_users: int, n_items: int) -> SparseMatrix:
    """D^-1 (A + I), shape (N, N), with A the unweighted bipartite adjacency and D the row sums of A + I: a mean."""
    node = torch.arange(n_users + n_items)
    row = torch.cat([edges.user_E, edges.item_E + n_users, node])
    col = torch.cat([edges.item_E + n_users, edges.user_E, node])
    degree = torch.bincount(row, minlength=len(node)).double()
    return SparseMatrix(row, col, degree.reciprocal()[row].float(), (len(node), len(node)))


def layer_mean(adjacency: SparseMatrix, x_ND: Tensor, n_layers: int, rows_B: Tensor | None = None) -> Tensor:
    """1/(L + 1) sum_{l=0..L} A^l x, shape (N, D), or its rows ``rows_B``, shape (B, D)."""
    if rows_B is not None:
        return layer_mean_rows(adjacency, x_ND, n_layers, rows_B)[0]
    mean_ND: Tensor = _LayerMean.apply(adjacency, x_ND, n_layers)  # type: ignore[no-untyped-call]
    return mean_ND


def layer_mean_rows(adjacency: SparseMatrix, x_ND: Tensor, n_layers: int, rows_B: Tensor) -> tuple[Tensor, Tensor]:
    """The rows ``rows_B`` of ``layer_mean`` and of x itself, both of shape (B, D).

    One call for what a batch needs, scores and the regulariser of layer 0, so that one gradient array is written: the
    last product makes the batch's rows only, and the first product of the backward pass meets their gradients only.
    """
    if n_layers and compiled(x_ND):
        return _LayerMeanRows.apply(adjacency, x_ND, n_layers, rows_B)  # type: ignore[no-untyped-call,no-any-return]
    return layer_mean(adjacency, x_ND, n_layers)[rows_B], x_ND[rows_B]


class _LayerMean(torch.autograd.Function):
    """By Horner's rule: z <- x + A z, L times, from z = x. The gradient is the same sum with A transposed."""

    @staticmethod
    def forward(ctx: Any, adjacency: SparseMatrix, x_ND: Tensor, n_layers: int) -> Tensor:
        ctx.adjacency, ctx.n_layers = adjacency, n_layers
        return _horner(adjacency.side(transpose=False), x_ND, n_layers) / (n_layers + 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[None, Tensor, None]:
        return None, _horner(ctx.adjacency.side(transpose=True), grad_ND, ctx.n_layers) / (ctx.n_layers + 1), None


class _LayerMeanRows(torch.autograd.Function):
    """``_LayerMean`` for B rows of the result, K of them distinct, where L is at least 1."""

    @staticmethod
    def forward(
        ctx: Any, adjacency: SparseMatrix, x_ND: Tensor, n_layers: int, rows_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        rows_K, index_B, place_N = distinct(rows_B, len(x_ND))
        ctx.adjacency, ctx.n_layers, ctx.rows = adjacency, n_layers, (len(rows_K), index_B, place_N)
        side = adjacency.side(transpose=False)
        sum_KD = gather(side, _horner(side, x_ND, n_layers - 1), rows_B=rows_K, add_MD=x_ND)
        return take_rows(index_B, sum_KD, n_layers + 1), take_rows(rows_B, x_ND)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, mean_BD: Tensor, first_BD: Tensor) -> tuple[None, Tensor, None, None]:
        size_K, index_B, place_N = ctx.rows
        mean_KD = sum_rows(index_B, mean_BD, size_K, ctx.n_layers + 1)
        last_KD = mean_KD + sum_rows(index_B, first_BD, size_K)  # what the last step of Horner's rule adds
        side = ctx.adjacency.side(transpose=True)
        grad_ND = gather_placed(side, mean_KD, last_KD if ctx.n_layers == 1 else mean_KD, place_N)
        for layer in range(2, ctx.n_layers + 1):
            grad_ND = gather(side, grad_ND, add_MD=last_KD if layer == ctx.n_layers else mean_KD, place_M=place_N)
        return None, grad_ND, None, None


def _horner(side: Side, x_ND: Tensor, n_layers: int) -> Tensor:
    z_ND = x_ND
    for _ in range(n_layers):
        z_ND = product(side, z_ND, x_ND)
    return z_ND
