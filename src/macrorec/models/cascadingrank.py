"""CascadingRank: a user's scores flow through the graph of each behaviour in turn; nothing is trained.

Ko, Jeon & Jung, Personalized ranking on cascading behavior graphs for accurate multi-behavior recommendation
(Information Sciences 2025).

| in the paper                                                     | here                                         |
|------------------------------------------------------------------|----------------------------------------------|
| A~_b = D_u^-1/2 A_b D_i^-1/2                                     | ``behaviors``                                |
| queries q_u (one-hot) and q_i (the user's row, divided by size)  | ``query``                                    |
| r_u <- g A~ r_i + alpha q_u + beta r_u', with r' of the behaviour | ``settle``, g = 1 - alpha - beta             |
| r_i <- g A~^T r_u + alpha q_i + beta r_i'  before, until they stay |                                              |
| r_i of the target behaviour                                      | ``score_all``                                |

The first behaviour takes its own queries for r'. Deviations: r_i is computed from the new r_u, not from the last one
(the same limit in half the steps), and the number of steps follows from the tolerance: |A~| <= 1, so the distance to
the limit shrinks by g^2 in each. Ours is what a user outside train gets: the target behaviour alone, from its row.

Shape letters: B users asked for, U users, I items, E items of users.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from macrorec.api import Model, take_rows
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Edges, Graph
from macrorec.ops.spmm import SparseMatrix, spmm

_USERS_AT_ONCE = 64  # of 32 to 512 the fastest: wide enough for whole cache lines, and both arrays stay in a cache


@dataclass(frozen=True, kw_only=True, slots=True)
class CascadingRankConfig:
    """The paper's settings for Taobao (authors' code)."""

    alpha: float = 0.0
    """How much a behaviour keeps to the query."""
    beta: float = 0.9
    """How much a behaviour keeps to the result of the one before. The rest, 1 - alpha - beta, flows along edges."""
    tolerance: float = 1e-6
    """Distance to the limit, as a share of the limit's length, for each behaviour."""

    def __post_init__(self) -> None:
        if min(self.alpha, self.beta) < 0 or not 0 < self.alpha + self.beta <= 1:
            raise ConfigError(
                "cascadingrank needs alpha >= 0 and beta >= 0 with a sum above 0 and at most 1; "
                f"got alpha={self.alpha}, beta={self.beta}"
            )
        if not 0 < self.tolerance < 1:
            raise ConfigError(f"cascadingrank needs a tolerance between 0 and 1; got {self.tolerance}")

    @property
    def flow(self) -> float:
        """g: what flows along edges."""
        return max(0.0, 1 - self.alpha - self.beta)

    @property
    def n_steps(self) -> int:
        """The least n with g^2n <= tolerance."""
        return 1 if self.flow < 1e-9 else max(1, math.ceil(math.log(self.tolerance) / (2 * math.log(self.flow))))


class CascadingRank(Model):
    """Scores that settle on one behaviour's graph after the other. Everything follows from the graph."""

    Config = CascadingRankConfig
    config: CascadingRankConfig

    def __init__(self, config: CascadingRankConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.refresh(graph)

    @classmethod
    def memory(cls, config: CascadingRankConfig, graph: Graph) -> int:
        return 2 * 96 * sum(map(len, graph.edges)) + 4 * 8 * _USERS_AT_ONCE * graph.n_nodes

    def solve(self, graph: Graph, generator: torch.Generator) -> None:
        """There is nothing to fit."""

    def refresh(self, graph: Graph) -> None:
        device = next((tensor.device for tensor in self.buffers()), None)
        self.behaviors = nn.ModuleList(_normalized(edges, graph).to(device) for edges in graph.edges)

    def score_all(self, users_B: Tensor) -> Tensor:
        blocks = [self.cascade(users) for users in torch.split(users_B, _USERS_AT_ONCE)]
        return torch.cat(blocks)

    def cascade(self, users_B: Tensor) -> Tensor:
        """r_i of the target behaviour, (B, I)."""
        before: tuple[Tensor, Tensor] | None = None
        for matrix in self.matrices():
            query = self.query(matrix, users_B)
            before = self.settle(matrix, query, before or query)
        assert before is not None, "a graph has a target behaviour"
        return before[1].T

    def query(self, matrix: SparseMatrix, users_B: Tensor) -> tuple[Tensor, Tensor]:
        """q_u (U, B) and q_i (I, B)."""
        user_UB = torch.zeros(matrix.shape[0], len(users_B), device=users_B.device)
        user_UB[users_B, torch.arange(len(users_B), device=users_B.device)] = 1
        start_B, item_E = take_rows(matrix.start_M, matrix.col_E, users_B)
        return user_UB, self.rows(start_B, item_E)

    def rows(self, start_B: Tensor, item_E: Tensor) -> Tensor:
        """Users' items, each user's with a sum of 1, (I, B)."""
        size_B = start_B.diff()
        user_E = torch.arange(len(size_B), device=size_B.device).repeat_interleave(size_B)
        rows_IB = torch.zeros(self.n_items, len(size_B), device=size_B.device)
        rows_IB[item_E.long(), user_E] = size_B.float().reciprocal()[user_E]
        return rows_IB

    def settle(
        self, matrix: SparseMatrix, query: tuple[Tensor, Tensor], before: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """r_u (U, B) and r_i (I, B) of one behaviour."""
        kept_UB, kept_IB = (self.config.alpha * q + self.config.beta * r for q, r in zip(query, before, strict=True))
        result_UB, result_IB = kept_UB, kept_IB
        for _ in range(self.config.n_steps):
            result_UB = kept_UB + self.config.flow * spmm(matrix, result_IB)
            result_IB = kept_IB + self.config.flow * spmm(matrix, result_UB, transpose=True)
        return result_UB, result_IB

    def fold_in(self, history: Edges) -> Tensor:
        """New users have no node, so their row of the target behaviour stands for r_i', and nothing for r_u'."""
        matrix = list(self.matrices())[-1]
        start_B, item_E = history.start_U.to(matrix.start_M.device), history.item_E.to(matrix.start_M.device)
        items_IB = self.rows(start_B, item_E)
        query = items_IB.new_zeros(matrix.shape[0], items_IB.shape[1]), items_IB
        return self.settle(matrix, query, query)[1].T

    def matrices(self) -> list[SparseMatrix]:
        """A~ of each behaviour, (U, I), target last."""
        return [matrix for matrix in self.behaviors if isinstance(matrix, SparseMatrix)]


def _normalized(edges: Edges, graph: Graph) -> SparseMatrix:
    degree_U, degree_I = edges.degrees(graph.n_items)
    value_E = (degree_U[edges.user_E] * degree_I[edges.item_E]).double().rsqrt().float()
    return SparseMatrix(edges.user_E, edges.item_E, value_E, (graph.n_users, graph.n_items))


MODEL = CascadingRank
