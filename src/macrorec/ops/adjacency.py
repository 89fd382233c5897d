"""How is one behaviour a graph of nodes, users and items alike? Every edge is an entry of both its ends.

Shape letters: U users, I items, N = U + I nodes (item i is node U + i), E edges, F = 2 E entries.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from macrorec.graph.bipartite import Edges
from macrorec.ops.gather import Side


class Adjacency(nn.Module):
    """The edges of one behaviour as a symmetric graph of nodes: every edge is an entry of its user and of its item.

    All tensors are non-persistent buffers: they move with ``.to(device)`` and are not saved.
    """

    start_N: Tensor
    """Pointers, int64, shape (N + 1,): the entries of node n are start_N[n] : start_N[n + 1]."""
    node_F: Tensor
    """The other node of each entry, int32: E entries of users, numbered as the edges are, then E of items."""
    order_E: Tensor
    """Edge number of each entry of items, int32."""
    place_E: Tensor
    """The other way round: which of the items' entries is the edge's, int32."""

    def __init__(self, edges: Edges, n_items: int) -> None:
        super().__init__()
        self.n_users, self.n_items = len(edges.start_U) - 1, n_items
        order_E = torch.argsort(edges.item_E, stable=True)
        place_E = torch.empty_like(order_E)
        place_E[order_E] = torch.arange(len(edges))
        start_I = len(edges) + torch.bincount(edges.item_E, minlength=n_items).cumsum(0)
        node_F = torch.cat([self.n_users + edges.item_E, edges.user_E[order_E]])
        buffers = {"node_F": node_F.int(), "order_E": order_E.int(), "place_E": place_E.int()}
        for name, tensor in {"start_N": torch.cat([edges.start_U, start_I]), **buffers}.items():
            self.register_buffer(name, tensor, persistent=False)

    def __len__(self) -> int:
        """Edges, E."""
        return len(self.order_E)

    @property
    def n_nodes(self) -> int:
        """N."""
        return self.n_users + self.n_items

    def user_E(self) -> Tensor:
        """User of each edge, int64."""
        user_U = torch.arange(self.n_users, device=self.start_N.device)
        return user_U.repeat_interleave(self.start_N[: self.n_users + 1].diff())

    def both(self, value_E: Tensor) -> Tensor:
        """Values of edges as values of entries, (F,)."""
        return torch.cat([value_E, value_E.index_select(0, self.order_E)])

    def folded(self, value_F: Tensor) -> Tensor:
        """Per edge the sum over its two entries, (E,)."""
        of_users_E, of_items_E = value_F.tensor_split([len(self)])
        return of_users_E + of_items_E.index_select(0, self.place_E)

    def side(self, value_E: Tensor) -> Side:
        """The symmetric matrix (N, N) of these values in CSR form."""
        return self.start_N, self.node_F, self.both(value_E)
