"""GF-CF: recommendation as a linear and an ideal low-pass filter on the item graph; nothing is trained.

Shen et al., How powerful is graph convolution for recommendation? (CIKM 2021).

    equation                                                        here
    R~ = D_u^-1/2 R D_i^-1/2                        (sec. 2)        normalized
    linear filter    R~^T R~                        (sec. 4)        smooth
    ideal filter     D_i^-1/2 V V^T D_i^1/2                         low_pass, filter_IK = D_i^1/2 V
    score(u, :) = r_u (R~^T R~ + alpha D_i^-1/2 V V^T D_i^1/2)      apply_rows

V holds the right singular vectors of R~ with the largest singular values. R~^T R~ is applied as two sparse steps and
never formed. Deviations: none; R holds ones for target edges.
Shape letters: B batch, U users, I items, K vectors, H items of a user, E train edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from macrorec.api import ItemLinear
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Graph
from macrorec.ops.linear import inverse_root, normalized, truncated_svd
from macrorec.ops.rows import rows_there_and_back


@dataclass(frozen=True, kw_only=True, slots=True)
class GFCFConfig:
    """The two filters."""

    n_vectors: int = 256
    """Singular vectors of the ideal filter (the paper's Gowalla setting); 0 leaves the linear filter alone."""
    alpha: float = 0.3
    """Weight of the ideal filter (the paper's Gowalla setting)."""

    def __post_init__(self) -> None:
        if self.n_vectors < 0 or self.alpha < 0:
            raise ConfigError(f"gfcf needs n_vectors >= 0 and alpha >= 0; got {self.n_vectors} and {self.alpha}")


class GFCF(ItemLinear):
    """Two-hop votes through users alike, plus the projection onto the smoothest item signals."""

    Config = GFCFConfig
    config: GFCFConfig
    filter_IK: Tensor
    start_I: Tensor
    user_E: Tensor
    value_E: Tensor
    inverse_root_I: Tensor
    inverse_U: Tensor

    def __init__(self, config: GFCFConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        target, k = graph.target, min(config.n_vectors, graph.n_users, graph.n_items)
        self.register_buffer("filter_IK", torch.zeros(graph.n_items, k))
        # What follows from the train rows: the rows by item, the values of D_i^-1/2 along the rows, and degrees.
        degree_U, degree_I = target.degrees(graph.n_items)
        inverse_root_I = inverse_root(degree_I)
        start_I = torch.zeros(graph.n_items + 1, dtype=torch.int64)
        torch.cumsum(degree_I, 0, out=start_I[1:])
        self.register_buffer("start_I", start_I, persistent=False)
        self.register_buffer("user_E", target.user_E[target.item_E.argsort(stable=True)], persistent=False)
        self.register_buffer("value_E", inverse_root_I[target.item_E], persistent=False)
        self.register_buffer("inverse_root_I", inverse_root_I, persistent=False)
        self.register_buffer("inverse_U", inverse_root(degree_U).square(), persistent=False)

    @classmethod
    def memory(cls, config: GFCFConfig, graph: Graph) -> int:
        k = min(config.n_vectors, graph.n_users, graph.n_items)
        # ARPACK holds 2 k + 1 vectors of the smaller side; then come both sides' singular vectors; all in float64.
        solving = 8 * (3 * k + 1) * (graph.n_users + graph.n_items)
        return solving + 4 * k * graph.n_items + 64 * (len(graph.target) + graph.n_users + graph.n_items)

    def solve(self, graph: Graph, generator: torch.Generator) -> None:
        if self.filter_IK.shape[1]:
            matrix = normalized(graph.target.csr(graph.n_items))
            _, _, vector_IK = truncated_svd(matrix, self.filter_IK.shape[1], generator)
            root_I = self.start_I.diff().sqrt().unsqueeze(1)
            self.filter_IK.copy_(root_I * vector_IK.to(root_I.device))

    def apply_rows(self, start_B: Tensor, items_E: Tensor) -> Tensor:
        return self.smooth(start_B, items_E, self.low_pass(start_B, items_E))

    def low_pass(self, start_B: Tensor, items_E: Tensor) -> Tensor:
        """alpha r D_i^-1/2 V V^T D_i^1/2 = alpha r D_i^-1 F F^T with F = D_i^1/2 V; shape (B, I)."""
        if not self.filter_IK.shape[1]:
            return self.filter_IK.new_zeros(len(start_B) - 1, self.n_items)
        weight_E = self.inverse_root_I[items_E].square()
        rows_BK = embedding_bag(items_E, self.filter_IK, start_B[:-1], mode="sum", per_sample_weights=weight_E)
        return (self.config.alpha * rows_BK) @ self.filter_IK.T

    def smooth(self, start_B: Tensor, items_E: Tensor, out_BI: Tensor) -> Tensor:
        """Adds r R~^T R~ = (r D_i^-1/2 R^T D_u^-1) (R D_i^-1/2) to ``out_BI``: items to users, users to items."""
        to_users = (self.start_I, self.user_E, self.inverse_U)
        to_items = (self.start_U, self.item_E, self.value_E)
        return rows_there_and_back(start_B, items_E, self.inverse_root_I[items_E], *to_users, *to_items, out_BI)

    def similar(self, items_H: Tensor, items_B: Tensor) -> Tensor:
        # R~^T R~ is symmetric: the rows of the shorter list suffice.
        weight_H1 = self.inverse_root_I[items_H].square().unsqueeze(1)
        block_HB = (self.config.alpha * weight_H1 * self.filter_IK[items_H]) @ self.filter_IK[items_B].T
        rows, columns = (items_H, items_B) if len(items_H) <= len(items_B) else (items_B, items_H)
        start = torch.arange(len(rows) + 1, device=rows.device)
        linear = self.smooth(start, rows, block_HB.new_zeros(len(rows), self.n_items))[:, columns]
        return block_HB + (linear if rows is items_H else linear.T)


MODEL = GFCF
