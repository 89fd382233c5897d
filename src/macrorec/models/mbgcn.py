"""MBGCN: one graph of all behaviours with learned weights, and items that are relevant to each other per behaviour.

Jin, Gao, He, Jin & Li, Multi-behavior recommendation with graph convolutional networks (SIGIR 2020).

| equation                                                       | here                                        |
|----------------------------------------------------------------|---------------------------------------------|
| a_ut = w_t n_ut / sum_m w_m n_um                               | ``shares``                                  |
| p'_u = W sum_t a_ut mean_{i in N_t(u)} q_i                     | ``users`` of ``encode_rows``                |
| q'_i = W mean_{u in N(i)} p_u, N(i) by any behaviour           | ``items`` of ``encode_rows``                |
| s_it = W_t mean of the items co-interacted with i under t      | ``co_interacted``, then ``relevance_RDD``   |
| p* = [p ; p'], q* = [q ; q']                                   | parts of both vectors                       |
| y = p*.q* + lambda avg_t (mean_{j in N_t(u)} [q_j ; s_jt] M_t).[q_i ; s_it] | ``encode_rows``, as one product |
| BPR on the target + beta |Theta|^2                             | ``losses``                                  |
| node dropout, message dropout                                  | of nodes' messages; of p' and q'            |

The score is one inner product: with x_ut = mean_{j in N_t(u)} [q_j ; s_jt] M_t cut into halves y_ut and z_ut, it is
that of [p + lambda/R sum_t y_ut ; p' ; lambda/R z_u1 ; ... ; lambda/R z_uR] and [q ; q' ; s_i1 ; ... ; s_iR].

The items co-interacted with i are the other items j of the users of i: j counts once per user that they share, so that
their mean is (A^T A q - d o q) / (A^T n - d), with A the pattern of a behaviour, n = A 1 and d = A^T 1: two sparse
products instead of a matrix of items x items.

Deviations: w_t = exp(``log_weights_R``), which keeps a_ut within [0, 1]; one layer, as in the authors' code, which
lets p and q start from a trained matrix factorisation, adds up users instead of averaging them, and takes these from
the target behaviour; the l2 term is over the layer-0 rows of the batch, squared, halved, per example; node dropout
draws nodes (the code: entries of A, but none of the item graphs).

Shape letters: B batch, U users, I items, R behaviours, D embedding; J a positive and its negatives; K distinct users
or items of a batch; Z = (2 + R) D.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from macrorec.api import PairBatch, Pairwise, TwoTower
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Edges, Graph
from macrorec.ops.dropout import coins, dropout
from macrorec.ops.losses import bpr, l2_rows
from macrorec.ops.spmm import SparseMatrix, spmm, spmm_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class MBGCNConfig:
    """Values of the authors' code, where the paper searches for them."""

    dim: int = 32
    """D, length of the vectors."""
    relevance: float = 1.0
    """Lambda of the score: how much the items' relevance to each other counts."""
    node_dropout: float = 0.2
    """Share of nodes that send nothing in a step."""
    message_dropout: float = 0.2
    """Share of the numbers of p' and q' that are left out."""
    l2: float = 1e-4
    """Beta, per example, on the layer-0 rows of the batch."""
    init_std: float | None = None
    """Deviation of the normal distribution that p and q start from; None for Xavier's uniform values."""
    n_negatives: int = 1
    """Negatives per positive."""
    draw: Literal["edge", "user"] = "edge"
    """``edge``: every edge once per epoch; ``user``: user uniform, then one of its items."""
    true_negatives: bool = True
    """Whether a negative may be no train item of the user."""

    def __post_init__(self) -> None:
        for name in ("node_dropout", "message_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 0 and below 1, not {getattr(self, name)!r}")


class MBGCN(TwoTower):
    """User vectors from all behaviours, item vectors from their union, and relevance between items, in one product."""

    Config = MBGCNConfig
    config: MBGCNConfig
    sizes_RU: Tensor
    """n_ut, as float."""
    degrees_RI: Tensor
    """Users of each item under each behaviour, d, as float."""
    pairs_RI: Tensor
    """How many other items the users of an item have, added up over these users: A^T n - d."""
    union_degrees_I: Tensor

    def __init__(self, config: MBGCNConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.batches = Pairwise(n=config.n_negatives, by=config.draw, true_negatives=config.true_negatives)
        union = graph.union()
        matrices = [_pattern(edges, graph) for edges in graph.edges]
        self.behaviors, self.union = nn.ModuleList(matrices), _pattern(union, graph)
        sizes_RU, degrees_RI = zip(*(edges.degrees(graph.n_items) for edges in graph.edges), strict=True)
        others = zip(matrices, sizes_RU, degrees_RI, strict=True)
        pairs_RI = [spmm(matrix, n.double()[:, None], transpose=True)[:, 0] - d for matrix, n, d in others]
        for name, counts in (("sizes_RU", sizes_RU), ("degrees_RI", degrees_RI), ("pairs_RI", pairs_RI)):
            self.register_buffer(name, torch.stack(list(counts)).float(), persistent=False)
        self.register_buffer("union_degrees_I", union.degrees(graph.n_items)[1].float(), persistent=False)
        n_behaviors, dim = len(graph.edges), config.dim
        self.users_UD = nn.Parameter(torch.zeros(graph.n_users, dim))
        self.items_ID = nn.Parameter(torch.zeros(graph.n_items, dim))
        self.log_weights_R = nn.Parameter(torch.zeros(n_behaviors))
        self.weight_DD = nn.Parameter(torch.zeros(dim, dim))
        self.relevance_RDD = nn.Parameter(torch.zeros(n_behaviors, dim, dim))
        self.match_RYY = nn.Parameter(torch.zeros(n_behaviors, 2 * dim, 2 * dim))

    def initialise(self, generator: torch.Generator) -> None:
        """p, q: Xavier's uniform values or N(0, ``init_std``); matrices: Xavier's; w_t: 1."""
        for table in (self.users_UD, self.items_ID):
            if self.config.init_std is None:
                nn.init.xavier_uniform_(table, generator=generator)
            else:
                nn.init.normal_(table, std=self.config.init_std, generator=generator)
        for matrix in (self.weight_DD, *self.relevance_RDD, *self.match_RYY):
            nn.init.xavier_uniform_(matrix.data, generator=generator)

    @classmethod
    def memory(cls, config: MBGCNConfig, graph: Graph) -> int:
        """Tables and small matrices with gradient and moments; six arrays per behaviour; patterns while built."""
        n_behaviors = len(graph.edges)
        tables = (4 + 6 * n_behaviors) * graph.n_nodes * config.dim + 3 * (1 + n_behaviors) * graph.n_nodes
        small = 4 * (1 + 5 * n_behaviors) * (config.dim**2 + 1)
        return 4 * (tables + small) + 2 * 96 * sum(map(len, graph.edges))

    def pattern(self, behavior: int) -> SparseMatrix:
        """A of one behaviour, (U, I): one for each edge."""
        matrix = self.behaviors[behavior]
        assert isinstance(matrix, SparseMatrix)
        return matrix

    def shares(self, users_K: Tensor | None = None) -> Tensor:
        """a_ut, shape (R, K); zero for a user without any item."""
        sizes_RK = self.sizes_RU if users_K is None else self.sizes_RU[:, users_K]
        weighted_RK = self.log_weights_R.exp()[:, None] * sizes_RK
        return weighted_RK / weighted_RK.sum(0).clamp(min=torch.finfo(weighted_RK.dtype).tiny)

    def co_interacted(self, behavior: int, items_ID: Tensor, sums_UD: Tensor) -> Tensor:
        """Mean of the items co-interacted with each item, shape (I, D), or zero; ``sums_UD`` is A q."""
        all_ID = spmm(self.pattern(behavior), sums_UD, transpose=True)
        others_ID = all_ID - self.degrees_RI[behavior, :, None] * items_ID
        return others_ID / self.pairs_RI[behavior, :, None].clamp(min=1)

    def match(self, behavior: int, mean_KD: Tensor, relevant_KD: Tensor) -> tuple[Tensor, Tensor]:
        """lambda/R y_ut and lambda/R z_ut, (K, D) each, from the means over N_t(u) of q_j and of s_jt."""
        match_KY = torch.cat([mean_KD, relevant_KD], 1) @ self.match_RYY[behavior]
        y_KD, z_KD = (self.config.relevance / len(self.behaviors) * match_KY).chunk(2, 1)
        return y_KD, z_KD

    def encode(self) -> tuple[Tensor, Tensor]:
        return self.encode_rows(None, None, None)

    def encode_rows(
        self, users_K: Tensor | None, items_K: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Vectors of distinct users and of distinct items, (K, Z) each; ``generator`` draws dropout."""
        users_UD: Tensor = self.users_UD
        items_ID: Tensor = self.items_ID
        keep_I1 = None
        if self.training and self.config.node_dropout and generator is not None:
            keep_I1 = coins(items_ID[:, :1], self.config.node_dropout, generator)
            items_ID = items_ID * keep_I1
            users_UD = users_UD * coins(users_UD[:, :1], self.config.node_dropout, generator)
        sizes_RK = (self.sizes_RU if users_K is None else self.sizes_RU[:, users_K]).clamp(min=1)[..., None]
        share_RK = self.shares(users_K)[..., None]
        own_KD = _rows(self.users_UD, users_K)
        near_KD = torch.zeros_like(own_KD)
        user_parts, item_parts = [], []
        for t in range(len(self.behaviors)):
            matrix = self.pattern(t)
            sums_UD = spmm(matrix, items_ID)
            co_ID = self.co_interacted(t, items_ID, sums_UD)
            sent_ID = co_ID if keep_I1 is None else co_ID * keep_I1
            mean_KD = _rows(sums_UD, users_K) / sizes_RK[t]
            relevant_KD = _product(matrix, sent_ID, users_K) / sizes_RK[t] @ self.relevance_RDD[t]
            y_KD, z_KD = self.match(t, mean_KD, relevant_KD)
            near_KD = near_KD + share_RK[t] * mean_KD
            own_KD = own_KD + y_KD
            user_parts.append(z_KD)
            item_parts.append(_rows(co_ID, items_K) @ self.relevance_RDD[t])
        degree_K1 = _rows(self.union_degrees_I[:, None], items_K).clamp(min=1)
        from_users_KD = _product(self.union, users_UD, items_K, transpose=True) / degree_K1
        messages = [near_KD @ self.weight_DD, from_users_KD @ self.weight_DD]
        if self.training and generator is not None:
            messages = [dropout(x, self.config.message_dropout, generator) for x in messages]
        return (
            torch.cat([own_KD, messages[0], *user_parts], 1),
            torch.cat([_rows(self.items_ID, items_K), messages[1], *item_parts], 1),
        )

    def folding(self) -> Callable[[Edges], Tensor]:
        """Vectors (B, Z) of new users with target items alone: p is zero, and the graph stays as it was."""
        target, device, items_ID = len(self.behaviors) - 1, self.items_ID.device, self.items_ID
        co_ID = self.co_interacted(target, items_ID, spmm(self.pattern(target), items_ID))

        def fold(history: Edges) -> Tensor:
            size_B1 = history.start_U.diff().to(device).clamp(min=1)[:, None]
            shape = (len(size_B1), self.n_items)
            own = SparseMatrix(history.user_E, history.item_E, torch.ones(len(history)), shape).to(device)
            mean_BD = spmm(own, items_ID) / size_B1
            y_BD, z_BD = self.match(target, mean_BD, spmm(own, co_ID) / size_B1 @ self.relevance_RDD[target])
            nothing = [torch.zeros_like(z_BD)] * target
            return torch.cat([y_BD, mean_BD @ self.weight_DD, *nothing, z_BD], 1)

        return fold

    def losses(self, batch: PairBatch) -> dict[str, Tensor]:
        items_BJ = torch.cat([batch.items_B[:, None], batch.negatives_BN], 1)
        users_K, user_B = torch.unique(batch.users_B, return_inverse=True)
        items_K, item_BJ = torch.unique(items_BJ, return_inverse=True)
        users_KZ, items_KZ = self.encode_rows(users_K, items_K, batch.generator)
        score_BJ = (embedding(user_B, users_KZ)[:, None] * embedding(item_BJ, items_KZ)).sum(-1)
        l2 = l2_rows(embedding(batch.users_B, self.users_UD), embedding(items_BJ, self.items_ID))
        return {"bpr": bpr(score_BJ[:, 0], score_BJ[:, 1:]), "l2": self.config.l2 * l2}


def _pattern(edges: Edges, graph: Graph) -> SparseMatrix:
    """A, shape (U, I): one for each edge."""
    return SparseMatrix(edges.user_E, edges.item_E, torch.ones(len(edges)), (graph.n_users, graph.n_items))


def _rows(x_ND: Tensor, rows_K: Tensor | None) -> Tensor:
    return x_ND if rows_K is None else embedding(rows_K, x_ND)


def _product(matrix: SparseMatrix, x_ND: Tensor, rows_K: Tensor | None, *, transpose: bool = False) -> Tensor:
    if rows_K is None:
        return spmm(matrix, x_ND, transpose=transpose)
    return spmm_rows(matrix, x_ND, rows_K, transpose=transpose)


MODEL = MBGCN
