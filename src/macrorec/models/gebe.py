"""GEBE^p: users are near if many walks of Poisson length join them; in closed form, by singular vectors.

Yang, Shi, Huang & Xiao, Scalable and effective bipartite network embedding (SIGMOD 2022), with Poisson weights.

    equation                                                              here
    W <- W / sigma_1                                                      ``solve``
    H = sum_l Poisson(l; lambda) (W W^T)^l = exp(lambda (W W^T - I))      never formed
    W ~ Phi S Psi^T, of rank k                                            ``truncated_svd``
    U = Phi exp(lambda (S^2 - 1) / 2), so that U U^T ~ H                  ``users_UD``
    V = W^T U = Psi S exp(lambda (S^2 - 1) / 2), so that U V^T ~ H W      ``items_ID``
    score(u, i) = <U_u, V_i>                                              ``encode``

Deviations: singular vectors to machine precision, where the paper's are randomised; W holds ones, or with
``normalized`` those of D_u^-1/2 W D_i^-1/2. A new user's row w is put where a train user with that row would be:
w Psi S^-1 = Phi. Ours: ``graph``, for behaviours besides the target.
Shape letters: B batch, U users, I items, E edges, D vectors of rank k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from macrorec.api import TwoTower
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Edges, Graph
from macrorec.ops.linear import inverse_root, normalized, truncated_svd


@dataclass(frozen=True, kw_only=True, slots=True)
class GEBEConfig:
    """The paper's values."""

    dim: int = 128
    """k, length of the vectors: at most the smaller number of users and items."""
    decay: float = 1.0
    """lambda, the mean length of a walk in steps of two edges. At 0, H is the identity, and the score plain SVD."""
    graph: Literal["target", "union"] = "target"
    """``target``: edges of the target behaviour; ``union``: pairs of any behaviour, as one."""
    normalized: bool = False
    """Whether an edge weighs 1 / sqrt(d_u d_i)."""

    def __post_init__(self) -> None:
        if self.dim < 1 or self.decay < 0:
            raise ConfigError(f"gebe needs dim >= 1 and decay >= 0; got {self.dim} and {self.decay}")


class GEBE(TwoTower):
    """Singular vectors of the graph, those of long waves first."""

    Config = GEBEConfig
    config: GEBEConfig
    users_UD: Tensor
    items_ID: Tensor
    fold_ID: Tensor
    inverse_root_I: Tensor

    def __init__(self, config: GEBEConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        k = min(config.dim, graph.n_users, graph.n_items)
        self.register_buffer("users_UD", torch.zeros(graph.n_users, k))
        self.register_buffer("items_ID", torch.zeros(graph.n_items, k))
        self.register_buffer("fold_ID", torch.zeros(graph.n_items, k))
        edges = graph.union() if config.graph == "union" else graph.target
        self.register_buffer("inverse_root_I", inverse_root(edges.degrees(graph.n_items)[1]), persistent=False)

    @classmethod
    def memory(cls, config: GEBEConfig, graph: Graph) -> int:
        """ARPACK's 2 k + 1 vectors of the smaller side, both sides' singular vectors in float64, and the buffers."""
        k = min(config.dim, graph.n_users, graph.n_items)
        n_edges = sum(map(len, graph.edges)) if config.graph == "union" else len(graph.target)
        return (8 * (3 * k + 1) + 8 * k) * graph.n_nodes + 48 * n_edges

    def solve(self, graph: Graph, generator: torch.Generator) -> None:
        edges = graph.union() if self.config.graph == "union" else graph.target
        matrix = edges.csr(graph.n_items)
        if self.config.normalized:
            matrix = normalized(matrix)
        phi_UD, values_D, psi_ID = truncated_svd(matrix, self.users_UD.shape[1], generator)
        s_D = values_D / values_D.max()
        walks_D = (self.config.decay * (s_D**2 - 1) / 2).exp()
        self.users_UD.copy_(phi_UD * walks_D)
        self.items_ID.copy_(psi_ID * s_D * walks_D)
        # Of W unscaled, w Psi S^-1 = Phi; what has no length has no direction either.
        there_D = values_D > 1e-9 * values_D.max()
        self.fold_ID.copy_(psi_ID * torch.where(there_D, walks_D / torch.where(there_D, values_D, 1), 0))

    def encode(self) -> tuple[Tensor, Tensor]:
        return self.users_UD, self.items_ID

    def fold_in_vectors(self, history: Edges) -> Tensor:
        """w Psi S^-1 exp(lambda (S^2 - 1) / 2), shape (B, D); a train user's row gives its own vector."""
        item_E, start_B = (x.to(self.fold_ID.device) for x in (history.item_E, history.start_U))
        if not self.config.normalized:
            return embedding_bag(item_E, self.fold_ID, start_B[:-1], mode="sum")
        weight_E = (inverse_root(start_B.diff())[history.user_E] * self.inverse_root_I[item_E]).to(self.fold_ID.dtype)
        return embedding_bag(item_E, self.fold_ID, start_B[:-1], mode="sum", per_sample_weights=weight_E)


MODEL = GEBE
