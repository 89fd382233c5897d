"""NGCF: layers of a graph convolution that also multiplies a node with its neighbours, concatenated.

Wang, He, Wang, Feng & Chua, Neural graph collaborative filtering (SIGIR 2019).

| equation                                            | here                                             |
|-----------------------------------------------------|--------------------------------------------------|
| (8): L = D^-1/2 A D^-1/2                            | ``adjacency``                                    |
| (7): E^(l) = LeakyReLU((L + I) E W_1 + L E o E W_2) | ``layer``                                        |
| (9): e* = e^(0) || ... || e^(L)                     | ``encode``                                       |
| (10): y_ui = <e*_u, e*_i>                           | ``score`` of ``TwoTower``                        |
| (11): BPR + lambda |Theta|^2                        | ``losses``                                       |
| sec. 2.4.2, message dropout                         | ``dropout`` on what a layer hands on             |

Deviations, all as in the authors' code: (7) is LeakyReLU(S E W_1 + b_1) + LeakyReLU((E o S' E) W_2 + b_2), with S and
S' by ``matrix``; layers above 0 are normalised to length 1 before (9); BPR is the mean over the batch, and the l2 term
holds the vectors of the batch, squared, halved, per example. That term is over e* in the code: of which all parts but
e^(0) have a constant length, so that here it is over e^(0). No node dropout, which the code leaves off by default.

Shape letters: B batch, U users, I items, N = U + I nodes, E edges, D embedding, L layers; J a positive and its
negatives, M = 1 + J with the user; K distinct nodes of a batch; Z = (L + 1) D.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, leaky_relu, normalize

from macrorec.api import PairBatch, Pairwise, TwoTower
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Edges, Graph
from macrorec.ops.dropout import dropout
from macrorec.ops.layers import mean_adjacency, normalized_adjacency
from macrorec.ops.losses import bpr, l2_rows
from macrorec.ops.spmm import SparseMatrix, spmm, spmm_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class NGCFConfig:
    """Values of the paper, section 4.2.3, where it gives them."""

    dim: int = 64
    """D, length of the vectors of each layer."""
    n_layers: int = 3
    """L, layers of propagation, at least 1."""
    graph: Literal["target", "union"] = "target"
    """``target``: edges of the target behaviour (NGCF-OB); ``union``: pairs of any behaviour, as one (NGCF-MB)."""
    matrix: Literal["plain", "text", "released"] = "plain"
    """S, S': ``plain`` L, L; ``text`` L + I, L, as in (7); ``released`` both D^-1 (A + I), the code's default."""
    dropout: float = 0.1
    """Share of the numbers of a layer that message dropout leaves out."""
    slope: float = 0.2
    """Of LeakyReLU below 0 (authors' code)."""
    l2: float = 1e-5
    """Lambda of (11)."""
    init_std: float | None = None
    """Deviation of the normal distribution that E^(0) starts from; None for Xavier's uniform values."""
    n_negatives: int = 1
    """Negatives per positive."""
    draw: Literal["edge", "user"] = "edge"
    """``edge``: every edge once per epoch; ``user``: user uniform, then one of its items."""
    true_negatives: bool = True
    """Whether a negative may be no train item of the user."""

    def __post_init__(self) -> None:
        if self.n_layers < 1:
            raise ConfigError(f"n_layers must be at least 1, not {self.n_layers!r}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be at least 0 and below 1, not {self.dropout!r}")


class NGCF(TwoTower):
    """Layers of (7), each normalised, one beside the other, learned by BPR."""

    Config = NGCFConfig
    config: NGCFConfig

    def __init__(self, config: NGCFConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.batches = Pairwise(n=config.n_negatives, by=config.draw, true_negatives=config.true_negatives)
        edges = graph.union() if config.graph == "union" else graph.target
        make = mean_adjacency if config.matrix == "released" else normalized_adjacency
        self.adjacency = make(edges, graph.n_users, graph.n_items)
        n_layers, dim = config.n_layers, config.dim
        self.vectors_ND = nn.Parameter(torch.zeros(graph.n_nodes, dim))
        self.sum_LDD, self.sum_bias_LD = _linear(n_layers, dim)
        self.product_LDD, self.product_bias_LD = _linear(n_layers, dim)

    def initialise(self, generator: torch.Generator) -> None:
        """E^(0): Xavier's uniform values over users and over items, or N(0, ``init_std``); W: Xavier's; biases 0."""
        if self.config.init_std is None:
            for rows_D in torch.tensor_split(self.vectors_ND.data, [self.n_users]):
                nn.init.xavier_uniform_(rows_D, generator=generator)
        else:
            nn.init.normal_(self.vectors_ND, std=self.config.init_std, generator=generator)
        for layers in (self.sum_LDD, self.product_LDD):
            for weight_DD in layers.data:
                nn.init.xavier_uniform_(weight_DD, generator=generator)

    @classmethod
    def memory(cls, config: NGCFConfig, graph: Graph) -> int:
        """Weights, gradients and moments; ten arrays (N, D) per layer for backward; the adjacency while it is built."""
        n_edges = sum(map(len, graph.edges)) if config.graph == "union" else len(graph.target)
        layers = config.n_layers * (10 * graph.n_nodes * config.dim + 8 * config.dim * (config.dim + 1))
        return 4 * (8 * graph.n_nodes * config.dim + layers) + 2 * 64 * (n_edges + graph.n_nodes)

    def layer(self, number: int, own_ND: Tensor, near_ND: Tensor) -> Tensor:
        """(7) of layer ``number`` + 1, from the nodes' own vectors of layer ``number`` and S' times these."""
        sum_ND = own_ND + near_ND if self.config.matrix == "text" else near_ND
        linear_ND = torch.addmm(self.sum_bias_LD[number], sum_ND, self.sum_LDD[number])
        product_ND = torch.addmm(self.product_bias_LD[number], own_ND * near_ND, self.product_LDD[number])
        return leaky_relu(linear_ND, self.config.slope) + leaky_relu(product_ND, self.config.slope)

    def encode(self) -> tuple[Tensor, Tensor]:
        layer_ND: Tensor = self.vectors_ND
        layers = [layer_ND]
        for number in range(self.config.n_layers):
            layer_ND = self.layer(number, layer_ND, spmm(self.adjacency, layer_ND))
            layers.append(normalize(layer_ND))
        final_NZ = torch.cat(layers, 1)
        return final_NZ[: self.n_users], final_NZ[self.n_users :]

    def encode_rows(self, rows_K: Tensor, generator: torch.Generator) -> Tensor:
        """The vectors of distinct nodes in training, shape (K, Z): the last layer is made for them alone."""
        share = self.config.dropout if self.training else 0.0
        layer_ND: Tensor = self.vectors_ND
        own_KD = embedding(rows_K, layer_ND)
        layers = [own_KD]
        for number in range(self.config.n_layers - 1):
            layer_ND = dropout(self.layer(number, layer_ND, spmm(self.adjacency, layer_ND)), share, generator)
            own_KD = embedding(rows_K, layer_ND)
            layers.append(normalize(own_KD))
        last_KD = self.layer(self.config.n_layers - 1, own_KD, spmm_rows(self.adjacency, layer_ND, rows_K))
        layers.append(normalize(dropout(last_KD, share, generator)))
        return torch.cat(layers, 1)

    def folding(self) -> Callable[[Edges], Tensor]:
        """(7) and (9) for new users, shape (B, Z), over the frozen layers of items; e^(0) is zero.

        An item without users in train counts as if it had one.
        """
        device, released = self.vectors_ND.device, self.config.matrix == "released"
        degree_I = self.adjacency.start_M.diff()[self.n_users :].clamp(min=1).cpu()
        nodes_ND: list[Tensor] = [self.vectors_ND]
        for number in range(self.config.n_layers - 1):
            nodes_ND.append(self.layer(number, nodes_ND[-1], spmm(self.adjacency, nodes_ND[-1])))

        def fold(history: Edges) -> Tensor:
            size_B = history.start_U.diff()
            degree_E = size_B[history.user_E] + 1 if released else size_B[history.user_E] * degree_I[history.item_E]
            value_E = degree_E.float().reciprocal() if released else degree_E.float().rsqrt()
            own = SparseMatrix(history.user_E, history.item_E, value_E, (len(size_B), self.n_items)).to(device)
            new_BD = self.vectors_ND.new_zeros(len(size_B), self.config.dim)
            layers = [new_BD]
            for number in range(self.config.n_layers):
                near_BD = spmm(own, nodes_ND[number][self.n_users :])
                if released:
                    near_BD = near_BD + new_BD / (size_B[:, None].to(device) + 1)
                new_BD = self.layer(number, new_BD, near_BD)
                layers.append(normalize(new_BD))
            return torch.cat(layers, 1)

        return fold

    def losses(self, batch: PairBatch) -> dict[str, Tensor]:
        items_BJ = self.n_users + torch.cat([batch.items_B[:, None], batch.negatives_BN], 1)
        nodes_BM = torch.cat([batch.users_B[:, None], items_BJ], 1)
        rows_K, index_BM = torch.unique(nodes_BM, return_inverse=True)
        final_KZ = self.encode_rows(rows_K, batch.generator)
        user_BZ1, items_BJZ = embedding(index_BM[:, 0], final_KZ)[..., None], embedding(index_BM[:, 1:], final_KZ)
        score_BJ = torch.bmm(items_BJZ, user_BZ1).squeeze(2)  # (10)
        l2 = l2_rows(embedding(nodes_BM, self.vectors_ND))
        return {"bpr": bpr(score_BJ[:, 0], score_BJ[:, 1:]), "l2": self.config.l2 * l2}


def _linear(n_layers: int, dim: int) -> tuple[nn.Parameter, nn.Parameter]:
    """W and b of each layer."""
    return nn.Parameter(torch.zeros(n_layers, dim, dim)), nn.Parameter(torch.zeros(n_layers, dim))


MODEL = NGCF
