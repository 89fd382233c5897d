"""How are all pairs that are no edge taken into a loss of squares without forming them? By the items' Gram matrix.

The sum over all items i of a_i <p, q_i>^2 is p G p' with G = sum_i a_i q_i q_i'; edges are taken out of it one by one.
After the whole-data term of Chen et al., Efficient neural matrix factorization without sampling (TOIS 2020).

Shape letters: B users, U users and I items of the graph, E their pairs that are edges, Z width of both sides.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from macrorec.graph.bipartite import Edges
from macrorec.ops.inner import inner_products
from macrorec.ops.spmm import SparseMatrix


class OtherPairs(nn.Module):
    """Weights w_u a_i of pairs (u, i): w_u = N r (r_u / r)^by_user and a_i = (1 + degree of i)^by_item.

    r_u are the user's edges per pair, by a: H_u / sum_i a_i over all items but, if ``apart``, the user's own; and r
    those of all users with an edge together. With ``by_user`` of 1, a user's pairs weigh N for each edge of the user,
    as if so many were drawn in proportion to a; with 0, pairs of all users weigh the same.
    """

    weight_I: Tensor

    def __init__(self, edges: Edges, n_items: int, n: float, *, by_user: float, by_item: float, apart: bool) -> None:
        """``n``: N. ``apart``: an edge is none of these pairs; otherwise it is both."""
        super().__init__()
        self.n, self.by_user, self.apart = n, by_user, apart
        degree_I = torch.bincount(edges.item_E, minlength=n_items)
        self.register_buffer("weight_I", (1.0 + degree_I) ** by_item, persistent=False)
        n_users = int((edges.start_U.diff() > 0).sum())
        pairs = n_users * float(self.weight_I.sum()) - apart * float((degree_I * self.weight_I).sum())
        self.rate = len(edges) / pairs if pairs > 0 else 0.0

    def weights(self, start_B: Tensor, items_E: Tensor) -> tuple[Tensor, Tensor]:
        """w_b of users with these items, (B,), and row_E, whose item each is; w_b is 0 where there is no other pair."""
        size_B = start_B.diff()
        row_E = torch.arange(len(size_B), device=size_B.device).repeat_interleave(size_B)
        own_B = torch.zeros_like(size_B, dtype=self.weight_I.dtype)
        if self.apart:
            own_B = own_B.index_add(0, row_E, self.weight_I[items_E])
        others_B = self.weight_I.sum() - own_B
        share_B = size_B / others_B / self.rate if self.rate else torch.zeros_like(others_B)
        there_is = others_B > 0.5 * self.weight_I.min()
        return torch.where(there_is, self.n * self.rate * share_B**self.by_user, 0.0), row_E

    def gram(self, items_IZ: Tensor) -> Tensor:
        """G, shape (Z, Z)."""
        return (items_IZ * self.weight_I[:, None]).T @ items_IZ

    def of_edges(self, weight_B: Tensor, row_E: Tensor, items_E: Tensor) -> Tensor:
        """What is in the sum over all items for each edge, and must out of it, (E,)."""
        return weight_B[row_E] * self.weight_I[items_E] * self.apart

    def squares(self, users_BZ: Tensor, items_IZ: Tensor, start_B: Tensor, items_E: Tensor) -> Tensor:
        """The sum of (1 - y)^2 over edges, and of w_b a_i y^2 over all other pairs; y is the inner product."""
        weight_B, row_E = self.weights(start_B, items_E)
        shape = (len(users_BZ), len(items_IZ))
        edges = SparseMatrix(row_E, items_E, self.of_edges(weight_B, row_E, items_E), shape)
        y_E = inner_products(edges, users_BZ, items_IZ)
        return (
            self.over_items(users_BZ, weight_B, self.gram(items_IZ)).sum()
            + ((1 - y_E).square() - edges.value_E * y_E.square()).sum()
        )

    def over_items(self, users_BZ: Tensor, weight_B: Tensor, gram_ZZ: Tensor) -> Tensor:
        """w_b sum_i a_i y_bi^2 over all items, (B,)."""
        return weight_B * ((users_BZ @ gram_ZZ) * users_BZ).sum(-1)
