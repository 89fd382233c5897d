"""GHCF: nodes and relations spread over a graph of several behaviours, learned from all pairs, without sampling.

Chen, Ma, Zhang, Wang, He, Wang, Liu & Ma, Graph heterogeneous multi-relational recommendation (AAAI 2021).

| in the paper                                                        | here                                   |
|---------------------------------------------------------------------|----------------------------------------|
| H_k = LeakyReLU((A^_k E o r_k) W^l), A^_k = D^-1/2 A_k D^-1/2        | ``layer``: A^_k (E diag(r_k) W^l)      |
| E^(l) = sum_k c_k H_k                                               | ``layer``, c = ``coefficients``        |
| r_k^(l) = r_k^(l-1) W_rel^l                                         | ``relations``                          |
| E, r: means of layers 0 to L                                        | ``vectors``, ``relations``             |
| y_k(u, i) = sum_d u_d i_d r_kd                                      | ``encode``, r of the target within u   |
| L_k = sum_{u in B} sum_i w^-_i y^2 over all i, + sum of positives   | ``whole_data``                         |
|   = w sum_dd' (U'U o V'V o r r')_dd' + sum_pos (1 - w) y^2 - 2 y    |                                        |
| L = sum_k c_k L_k + l2 / 2 (|U|^2 + |V|^2)                          | ``losses``, over B                     |

U holds the final vectors of the batch's users, V those of all items. The loss is that of weighted regression on ones
and zeros, all pairs that are no edge weighing w, but for a constant.

Deviations: all terms are divided by the number of users in the batch, so that they do not grow with it. No edges are
dropped (authors' code: a tenth, beside message dropout). Coefficients are equal unless they are given. A batch holds
users with an edge of any behaviour.

Shape letters: B users of the batch, U users, I items, N = U + I nodes, R behaviours, D embedding, L layers, K chosen
nodes, E edges of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, leaky_relu

from macrorec.api import RowBatch, TwoTower, UserRows
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Graph
from macrorec.ops.dropout import dropout
from macrorec.ops.inner import inner_products
from macrorec.ops.layers import normalized_adjacency
from macrorec.ops.spmm import SparseMatrix, spmm, spmm_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class GHCFConfig:
    """Values of the paper and its code, those for Taobao where they differ."""

    dim: int = 64
    """D, length of the vectors."""
    n_layers: int = 4
    """L, layers of propagation."""
    coefficients: tuple[float, ...] = ()
    """c, weight of each behaviour in the graph and in the loss, target last; (): all equal, with a sum of 1."""
    negative_weight: float = 0.01
    """w, weight of a pair that is no edge; that of an edge is 1."""
    l2: float = 0.01
    """On final vectors of the batch's users and of all items, squared, halved, per user of the batch."""
    dropout: float = 0.2
    """Share of each layer's numbers that training sets to zero."""
    slope: float = 0.2
    """Of LeakyReLU below zero (authors' code, by its framework's default)."""

    def __post_init__(self) -> None:
        if not 0 < self.negative_weight <= 1 or not 0 <= self.dropout < 1 or min(self.coefficients, default=0) < 0:
            raise ConfigError(
                "ghcf needs 0 < negative_weight <= 1, 0 <= dropout < 1 and coefficients of at least 0; "
                f"got {self.negative_weight}, {self.dropout} and {self.coefficients}"
            )


class GHCF(TwoTower):
    """Relation-aware propagation; weighted regression on all pairs of every behaviour."""

    Config = GHCFConfig
    config: GHCFConfig
    batches = UserRows(every_behavior=True)
    exceptions: ClassVar[dict[str, str]] = {
        "checkerboard_is_learned": "pairs that are no edge weigh a hundredth: among 16 items they hardly count",
        "fold_in_of_a_colour_prefers_that_colour": "as the checkerboard that it is learned from",
    }

    def __init__(self, config: GHCFConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        n_behaviors = len(graph.edges)
        self.coefficients = config.coefficients or (1 / n_behaviors,) * n_behaviors
        if len(self.coefficients) != n_behaviors:
            raise ConfigError(f"ghcf has {len(self.coefficients)} coefficients for {n_behaviors} behaviours")
        sides = (normalized_adjacency(edges, graph.n_users, graph.n_items) for edges in graph.edges)
        self.adjacencies = nn.ModuleList(sides)
        square = (config.n_layers, config.dim, config.dim)
        self.vectors_ND = nn.Parameter(torch.zeros(graph.n_nodes, config.dim))
        self.relations_RD = nn.Parameter(torch.zeros(n_behaviors, config.dim))
        self.node_weights_LDD = nn.Parameter(torch.zeros(square))
        self.relation_weights_LDD = nn.Parameter(torch.zeros(square))

    def initialise(self, generator: torch.Generator) -> None:
        """Xavier's uniform values: users, items, relations, and each matrix by itself."""
        users_UD, items_ID = self.vectors_ND.data.tensor_split([self.n_users])
        matrices = (*self.node_weights_LDD.data, *self.relation_weights_LDD.data)
        for table in (users_UD, items_ID, self.relations_RD.data, *matrices):
            if table.numel():
                nn.init.xavier_uniform_(table, generator=generator)

    @classmethod
    def memory(cls, config: GHCFConfig, graph: Graph) -> int:
        """Arrays (N, D): vectors, gradient and moments; per layer, two per behaviour and four; and adjacencies."""
        n_behaviors = len(graph.edges)
        arrays = 8 + config.n_layers * (2 * n_behaviors + 4)
        small = 16 * (2 * config.n_layers * config.dim**2 + n_behaviors * config.dim)
        return 4 * arrays * graph.n_nodes * config.dim + small + 2 * 96 * sum(map(len, graph.edges))

    def layer(self, number: int, x_ND: Tensor, relations_RD: Tensor, rows_K: Tensor | None = None) -> Tensor:
        """E^(l) from E^(l-1) and r^(l-1), (N, D), or its rows ``rows_K``."""
        total: Tensor | None = None
        for adjacency, relation_D, coefficient in zip(self.adjacencies, relations_RD, self.coefficients, strict=True):
            assert isinstance(adjacency, SparseMatrix)
            # c LeakyReLU(x) = LeakyReLU(c x), and the product with a matrix is cheapest where it is small.
            sent_ND = x_ND @ (coefficient * relation_D[:, None] * self.node_weights_LDD[number])
            met = spmm(adjacency, sent_ND) if rows_K is None else spmm_rows(adjacency, sent_ND, rows_K)
            part = leaky_relu(met, self.config.slope)
            total = part if total is None else total + part
        assert total is not None, "a graph has a target behaviour"
        return total

    def relations(self) -> list[Tensor]:
        """r^(0) to r^(L), (R, D) each."""
        layers: list[Tensor] = [self.relations_RD]
        for weight_DD in self.relation_weights_LDD:
            layers.append(layers[-1] @ weight_DD)
        return layers

    def vectors(self, rows_K: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Mean of E^(0) to E^(L), (N, D), or its distinct rows ``rows_K``; ``generator`` draws dropout."""
        x_ND: Tensor = self.vectors_ND
        total = _rows(x_ND, rows_K)
        relations = self.relations()
        for number in range(self.config.n_layers):
            last = number + 1 == self.config.n_layers
            x_ND = self.layer(number, x_ND, relations[number], rows_K if last else None)
            if generator is not None:
                x_ND = dropout(x_ND, self.config.dropout, generator)
            total = total + (x_ND if last else _rows(x_ND, rows_K))
        return total / (self.config.n_layers + 1)

    def encode(self) -> tuple[Tensor, Tensor]:
        users_UD, items_ID = self.vectors().tensor_split([self.n_users])
        return users_UD * torch.stack(self.relations()).mean(0)[-1], items_ID

    def whole_data(
        self, start_B: Tensor, items_E: Tensor, users_BD: Tensor, items_ID: Tensor, grams_DD: Tensor, relation_D: Tensor
    ) -> Tensor:
        """L_k: squared errors of all pairs of the batch's users with all items, less the number of positives."""
        row_E = torch.arange(len(users_BD), device=items_E.device).repeat_interleave(start_B.diff())
        shape = (len(users_BD), self.n_items)
        positives = SparseMatrix(row_E, items_E, torch.ones(len(items_E), device=items_E.device), shape)
        y_E = inner_products(positives, users_BD * relation_D, items_ID)
        weight = self.config.negative_weight
        return weight * relation_D @ grams_DD @ relation_D + ((1 - weight) * y_E.square() - 2 * y_E).sum()

    def losses(self, batch: RowBatch) -> dict[str, Tensor]:
        n_users = len(batch.users_B)
        items_I = torch.arange(self.n_users, self.n_users + self.n_items, device=batch.users_B.device)
        rows_KD = self.vectors(torch.cat([batch.users_B, items_I]), batch.generator if self.training else None)
        users_BD, items_ID = rows_KD.tensor_split([n_users])
        grams_DD = (users_BD.T @ users_BD) * (items_ID.T @ items_ID)
        relations_RD = torch.stack(self.relations()).mean(0)
        terms = [
            coefficient * self.whole_data(*row, users_BD, items_ID, grams_DD, relation_D)
            for row, relation_D, coefficient in zip(batch.rows, relations_RD, self.coefficients, strict=True)
        ]
        l2 = (users_BD.square().sum() + items_ID.square().sum()) / 2
        return {"whole_data": torch.stack(terms).sum() / n_users, "l2": self.config.l2 * l2 / n_users}


def _rows(x_ND: Tensor, rows_K: Tensor | None) -> Tensor:
    return x_ND if rows_K is None else embedding(rows_K, x_ND)


MODEL = GHCF
