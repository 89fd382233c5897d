"""ItemKNN: an item is as good as it is alike to what the user has.

Deshpande & Karypis, Item-based top-N recommendation algorithms (TOIS 2004), with shrinkage as in Ferrari Dacrema et al.
(RecSys 2019).

    equation                                              here
    sim(h, i) = |U_h n U_i| / (sqrt(d_h d_i) + shrinkage)  cosine_neighbors
    S[h, :] = the k largest sim(h, .), else 0              neighbor_IK, similarity_IK
    score(u, i) = sum_{h in u} S[h, i]                     apply_rows

Deviations: columns of S are not scaled to unit length (the paper's optional step), and no frequency scaling.
Shape letters: B batch, I items, K neighbours, H items of a user, E train edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from macrorec.api import ItemLinear
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Graph
from macrorec.ops.linear import cosine_neighbors, rows_times


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Neighbourhood of an item."""

    k: int = 100
    """Neighbours kept per item."""
    shrinkage: float = 0.0
    """Added to the denominator: lowers similarities that rest on few users."""

    def __post_init__(self) -> None:
        if self.k < 1 or self.shrinkage < 0:
            raise ConfigError(f"itemknn needs k >= 1 and shrinkage >= 0; got k={self.k}, shrinkage={self.shrinkage}")


class ItemKNN(ItemLinear):
    """Votes of the user's items for their neighbours."""

    Config = Config
    neighbor_IK: Tensor
    similarity_IK: Tensor

    def __init__(self, config: Config, graph: Graph) -> None:
        super().__init__(config, graph)
        k = min(config.k, graph.n_items)
        self.register_buffer("neighbor_IK", torch.zeros(graph.n_items, k, dtype=torch.int64))
        self.register_buffer("similarity_IK", torch.zeros(graph.n_items, k))

    @classmethod
    def memory(cls, config: Config, graph: Graph) -> int:
        return 24 * graph.n_items * min(config.k, graph.n_items) + 48 * (len(graph.target) + graph.n_users)

    def solve(self, graph: Graph, generator: torch.Generator) -> None:
        items = graph.target.csr(graph.n_items).T.tocsr()
        neighbor_IK, similarity_IK = cosine_neighbors(items, items, self.config.k, self.config.shrinkage, same=True)
        self.neighbor_IK.copy_(neighbor_IK)
        self.similarity_IK.copy_(similarity_IK)

    def apply_rows(self, start_B: Tensor, items_E: Tensor) -> Tensor:
        n_items, k = self.neighbor_IK.shape
        start_I = torch.arange(n_items + 1, device=items_E.device) * k
        out_BI = self.similarity_IK.new_zeros(len(start_B) - 1, n_items)
        neighbors, values = self.neighbor_IK.view(-1), self.similarity_IK.view(-1)
        return rows_times(start_B, items_E, None, start_I, neighbors, values, out_BI)

    def similar(self, items_H: Tensor, items_B: Tensor) -> Tensor:
        wanted, place_B = items_B.unique(return_inverse=True)
        # Column of each neighbour among the wanted items; the last column takes the others.
        column_I = torch.full((self.n_items,), len(wanted), device=items_B.device)
        column_I[wanted] = torch.arange(len(wanted), device=items_B.device)
        block = self.similarity_IK.new_zeros(len(items_H), len(wanted) + 1)
        block.scatter_add_(1, column_I[self.neighbor_IK[items_H]], self.similarity_IK[items_H])
        return block[:, place_B]


MODEL = ItemKNN
