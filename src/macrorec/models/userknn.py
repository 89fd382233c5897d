"""UserKNN: an item is as good as the users alike who have it.

Resnick et al., GroupLens (CSCW 1994), for implicit feedback as in Ferrari Dacrema et al. (RecSys 2019).

    equation                                              here
    sim(u, v) = |I_u n I_v| / (sqrt(d_u d_v) + shrinkage)  cosine_neighbors
    N(u) = the k users v != u with largest sim(u, v)       neighbor_UK, similarity_UK
    score(u, i) = sum_{v in N(u)} sim(u, v) x_vi           vote

A new user's neighbours are found among all train users; a train user who is folded in is then the own nearest one,
whose votes go to items already had. Deviations: none.
Shape letters: B batch, U users, I items, K neighbours, E train edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from macrorec.api import Model
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Edges, Graph
from macrorec.ops.linear import cosine_neighbors, csr_of
from macrorec.ops.rows import check_numbers, rows_times


@dataclass(frozen=True, kw_only=True, slots=True)
class UserKNNConfig:
    """Neighbourhood of a user."""

    k: int = 100
    """Neighbours kept per user."""
    shrinkage: float = 0.0
    """Added to the denominator: lowers similarities that rest on few items."""

    def __post_init__(self) -> None:
        if self.k < 1 or self.shrinkage < 0:
            raise ConfigError(f"userknn needs k >= 1 and shrinkage >= 0; got k={self.k}, shrinkage={self.shrinkage}")


class UserKNN(Model):
    """Votes of the user's neighbours for their items. Keeps the train rows: neighbours vote with them."""

    Config = UserKNNConfig
    config: UserKNNConfig
    start_U: Tensor
    item_E: Tensor
    neighbor_UK: Tensor
    similarity_UK: Tensor

    def __init__(self, config: UserKNNConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        k = min(config.k, graph.n_users)
        self.register_buffer("start_U", graph.target.start_U.clone(), persistent=False)
        self.register_buffer("item_E", graph.target.item_E.clone(), persistent=False)
        self.register_buffer("neighbor_UK", torch.zeros(graph.n_users, k, dtype=torch.int64))
        self.register_buffer("similarity_UK", torch.zeros(graph.n_users, k))
        self.register_load_state_dict_post_hook(lambda model, _: check_numbers(model.neighbor_UK, graph.n_users))  # type: ignore[no-untyped-call]

    @classmethod
    def memory(cls, config: UserKNNConfig, graph: Graph) -> int:
        return 24 * graph.n_users * min(config.k, graph.n_users) + 48 * (len(graph.target) + graph.n_users)

    def solve(self, graph: Graph, generator: torch.Generator) -> None:
        users = graph.target.csr(graph.n_items)
        neighbor_UK, similarity_UK = cosine_neighbors(users, users, self.config.k, self.config.shrinkage, same=True)
        self.neighbor_UK.copy_(neighbor_UK)
        self.similarity_UK.copy_(similarity_UK)

    def vote(self, neighbor_BK: Tensor, similarity_BK: Tensor) -> Tensor:
        """Scores (B, I): the neighbours' rows, weighted by similarity."""
        n, k = neighbor_BK.shape
        start_B = torch.arange(n + 1, device=neighbor_BK.device) * k
        out_BI = similarity_BK.new_zeros(n, self.n_items)
        voters, weights = neighbor_BK.reshape(-1), similarity_BK.reshape(-1)
        return rows_times(start_B, voters, weights, self.start_U, self.item_E, None, out_BI)

    def score_all(self, users_B: Tensor) -> Tensor:
        return self.vote(self.neighbor_UK[users_B], self.similarity_UK[users_B])

    def fold_in(self, history: Edges) -> Tensor:
        train = csr_of(self.start_U, self.item_E, self.n_items)
        found = cosine_neighbors(history.csr(self.n_items), train, self.config.k, self.config.shrinkage, same=False)
        device = self.start_U.device
        return self.vote(found[0].to(device), found[1].to(device))


MODEL = UserKNN
