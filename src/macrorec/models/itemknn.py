"""ItemKNN: an item is as good as its nearest neighbours among the user's items.

Sarwar, Karypis, Konstan & Riedl, Item-based collaborative filtering recommendation algorithms (WWW 2001), for implicit
feedback as in Ferrari Dacrema, Cremonesi & Jannach (RecSys 2019).

    equation                                               here
    sim(h, i) = |U_h n U_i| / (sqrt(d_h d_i) + shrinkage)  cosine_neighbors
    N(i) = the k items h != i with largest sim(h, i)       the entries of column i of S
    score(u, i) = sum_{h in u, h in N(i)} sim(h, i)        apply_rows

Deviations: the sum is not divided by the sum of similarities, as feedback has no scale to return to.
Shape letters: B batch, I items, K neighbours, P = I K stored pairs, H items of a user, E train edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from macrorec.api import ItemLinear
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Graph
from macrorec.ops.linear import cosine_neighbors
from macrorec.ops.rows import check_numbers, check_starts, rows_times


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemKNNConfig:
    """Neighbourhood of an item."""

    k: int = 100
    """Neighbours kept per item."""
    shrinkage: float = 0.0
    """Added to the denominator: lowers similarities that rest on few users."""

    def __post_init__(self) -> None:
        if self.k < 1 or self.shrinkage < 0:
            raise ConfigError(f"itemknn needs k >= 1 and shrinkage >= 0; got k={self.k}, shrinkage={self.shrinkage}")


class ItemKNN(ItemLinear):
    """A sparse item-to-item matrix S with k entries per column, kept by row: row h lists what h speaks for."""

    Config = ItemKNNConfig
    config: ItemKNNConfig
    start_I: Tensor
    """Row h of S is start_I[h] : start_I[h + 1]."""
    target_P: Tensor
    similarity_P: Tensor

    def __init__(self, config: ItemKNNConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        n_pairs = graph.n_items * min(config.k, graph.n_items)
        self.register_buffer("start_I", torch.zeros(graph.n_items + 1, dtype=torch.int64))
        self.register_buffer("target_P", torch.zeros(n_pairs, dtype=torch.int64))
        self.register_buffer("similarity_P", torch.zeros(n_pairs))
        self.register_load_state_dict_post_hook(lambda model, _: model.check())  # type: ignore[no-untyped-call]

    @classmethod
    def memory(cls, config: ItemKNNConfig, graph: Graph) -> int:
        return 48 * graph.n_items * (min(config.k, graph.n_items) + 1) + 48 * (len(graph.target) + graph.n_users)

    def check(self) -> None:
        """Refuse stored numbers that point outside: compiled loops trust them."""
        check_numbers(self.target_P, self.n_items)
        check_starts(self.start_I, len(self.target_P))

    def solve(self, graph: Graph, generator: torch.Generator) -> None:
        items = graph.target.csr(graph.n_items).T.tocsr()
        neighbor_IK, similarity_IK = cosine_neighbors(items, items, self.config.k, self.config.shrinkage, same=True)
        order_P = neighbor_IK.view(-1).argsort(stable=True)
        torch.cumsum(neighbor_IK.view(-1).bincount(minlength=graph.n_items), 0, out=self.start_I[1:])
        self.target_P.copy_(order_P // neighbor_IK.shape[1])
        self.similarity_P.copy_(similarity_IK.view(-1)[order_P])

    def apply_rows(self, start_B: Tensor, items_E: Tensor) -> Tensor:
        out_BI = self.similarity_P.new_zeros(len(start_B) - 1, self.n_items)
        return rows_times(start_B, items_E, None, self.start_I, self.target_P, self.similarity_P, out_BI)

    def similar(self, items_H: Tensor, items_B: Tensor) -> Tensor:
        start_H = torch.arange(len(items_H) + 1, device=items_H.device)
        wanted, place_B = torch.unique(items_B, return_inverse=True)
        # Column of each target among the wanted items; the last column takes the others.
        column_I = torch.full((self.n_items,), len(wanted), device=items_B.device)
        column_I[wanted] = torch.arange(len(wanted), device=items_B.device)
        block = self.similarity_P.new_zeros(len(items_H), len(wanted) + 1)
        rows_times(start_H, items_H, None, self.start_I, column_I[self.target_P], self.similarity_P, block)
        return block[:, place_B]


MODEL = ItemKNN
