"""How do embeddings spread over a bipartite graph? Normalised adjacency and LightGCN's mean of layers.

Shape letters: U users, I items, N = U + I nodes (item i is node U + i), E edges, B rows, D embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from macrorec.graph.bipartite import Edges
from macrorec.ops.spmm import SparseMatrix, spmm


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
    scale = degree.clamp(min=1e-300).rsqrt()
    return SparseMatrix(row, col, (value * scale[row] * scale[col]).float(), (n_nodes, n_nodes))


def layer_mean(adjacency: SparseMatrix, x_ND: Tensor, n_layers: int, rows_B: Tensor | None = None) -> Tensor:
    """1/(L + 1) sum_{l=0..L} A^l x, shape (N, D), or its rows ``rows_B``, shape (B, D)."""
    layer = total = x_ND
    for _ in range(n_layers):
        layer = spmm(adjacency, layer)
        total = total + layer
    mean = total / (n_layers + 1)
    return mean if rows_B is None else mean[rows_B]
