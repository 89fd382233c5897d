"""LightGCN: the mean of layers of a linear graph convolution, learned by BPR.

He, Deng, Wang, Li, Zhang & Wang, LightGCN: Simplifying and powering graph convolution network for recommendation
(SIGIR 2020).

| equation                              | here                                                               |
|---------------------------------------|--------------------------------------------------------------------|
| (3), (7): E^(l+1) = D^-1/2 A D^-1/2 E | ``adjacency``, ``layer_mean``                                      |
| (4), (8): E = sum_l alpha_l E^(l)     | ``layer_mean``, alpha_l = 1 / (L + 1)                              |
| (5): y_ui = <e_u, e_i>                | ``score`` of ``TwoTower``                                          |
| (15): BPR + lambda |E^(0)|^2          | ``losses``                                                         |

Deviations from the text, all as in the authors' code: BPR is the mean, not the sum, over the batch; the l2 term holds
the layer-0 rows of the batch only, squared, halved, per example; E^(0) starts from N(0, .1), not from Xavier's values.

Shape letters: B batch, U users, I items, N = U + I nodes, E edges, D embedding; J a positive and its negatives,
M = 1 + J with the user.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from macrorec.api import PairBatch, Pairwise, TwoTower
from macrorec.graph.bipartite import Edges, Graph
from macrorec.ops.layers import layer_mean, layer_mean_rows, normalized_adjacency
from macrorec.ops.losses import bpr, l2_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class LightGCNConfig:
    """Values of the paper, section 4.1.2, where it gives them."""

    dim: int = 64
    """D, length of the vectors."""
    n_layers: int = 3
    """L, layers of propagation."""
    graph: Literal["target", "union"] = "target"
    """``target``: edges of the target behaviour; ``union``: pairs of any behaviour, as one."""
    l2: float = 1e-4
    """Lambda of (15)."""
    init_std: float = 0.1
    """Deviation of the normal distribution that E^(0) starts from (authors' code)."""
    n_negatives: int = 1
    """Negatives per positive."""
    draw: Literal["edge", "user"] = "user"
    """``edge``: every edge once per epoch; ``user`` (authors' code): user uniform, then one of its items."""
    true_negatives: bool = True
    """Whether a negative may be no train item of the user (authors' code)."""


class LightGCN(TwoTower):
    """The mean of layers of a linear graph convolution, learned by BPR."""

    Config = LightGCNConfig
    config: LightGCNConfig

    def __init__(self, config: LightGCNConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.batches = Pairwise(n=config.n_negatives, by=config.draw, true_negatives=config.true_negatives)
        edges = graph.union() if config.graph == "union" else graph.target
        self.adjacency = normalized_adjacency(edges, graph.n_users, graph.n_items)
        self.vectors_ND = nn.Parameter(torch.zeros(graph.n_nodes, config.dim))

    def initialise(self, generator: torch.Generator) -> None:
        """E^(0): normal, mean 0, deviation ``init_std``."""
        nn.init.normal_(self.vectors_ND, std=self.config.init_std, generator=generator)

    @classmethod
    def memory(cls, config: LightGCNConfig, graph: Graph) -> int:
        """Eight arrays (N, D): vectors, gradient, Adam's two, four of layers; and the adjacency while it is built."""
        n_edges = sum(map(len, graph.edges)) if config.graph == "union" else len(graph.target)
        return 4 * 8 * graph.n_nodes * config.dim + 2 * 64 * n_edges

    def encode(self) -> tuple[Tensor, Tensor]:
        final_ND = layer_mean(self.adjacency, self.vectors_ND, self.config.n_layers)
        return final_ND[: self.n_users], final_ND[self.n_users :]

    def losses(self, batch: PairBatch) -> dict[str, Tensor]:
        items_BJ = self.n_users + torch.cat([batch.items_B[:, None], batch.negatives_BN], 1)
        nodes_BM = torch.cat([batch.users_B[:, None], items_BJ], 1)
        mean, first = layer_mean_rows(self.adjacency, self.vectors_ND, self.config.n_layers, nodes_BM.flatten())
        users_BD, others_BJD = torch.tensor_split(mean.view(*nodes_BM.shape, -1), [1], dim=1)
        score_BJ = (users_BD * others_BJD).sum(-1)
        l2 = l2_rows(first.view(*nodes_BM.shape, -1))
        return {"bpr": bpr(score_BJ[:, 0], score_BJ[:, 1:]), "l2": self.config.l2 * l2}

    def folding(self) -> Callable[[Edges], Tensor]:
        """(7) and (8) for a new user with items H, over the frozen layers of items and without a layer 0 of its own.

        e_u = 1/(L + 1) sum_{l=0..L-1} sum_{i in H} e_i^(l) / sqrt(|H| |N_i|), shape (B, D); an item without
        users in train counts as if it had one.
        """
        n_layers, device = self.config.n_layers, self.vectors_ND.device
        if n_layers == 0:
            return super().folding()
        layers_ID = n_layers * layer_mean(self.adjacency, self.vectors_ND, n_layers - 1)[self.n_users :]
        degree_I = self.adjacency.start_M.diff()[self.n_users :].clamp(min=1)

        def fold(history: Edges) -> Tensor:
            user_E, item_E, start_B = (x.to(device) for x in (history.user_E, history.item_E, history.start_U))
            value_E = (start_B.diff()[user_E] * degree_I[item_E]).to(layers_ID.dtype).rsqrt()
            sums_BD = layers_ID.new_zeros(len(start_B) - 1, layers_ID.shape[1])
            return sums_BD.index_add_(0, user_E, layers_ID[item_E] * value_E[:, None]) / (n_layers + 1)

        return fold


MODEL = LightGCN
