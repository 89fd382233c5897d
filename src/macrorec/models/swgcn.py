"""SWGCN: one graph convolution per behaviour over learned edge weights, fused by attention.

Chen, Wang, Lou, Gao & Xiong, SWGCN: Synergy weighted graph convolutional network for multi-behavior recommendation.

| equation                                    | here                                                         |
|---------------------------------------------|--------------------------------------------------------------|
| sec. 4.1: E_r^(0), one per behaviour        | ``vectors``                                                  |
| (2): w_ui;r, Target Preference Weigher      | ``weights``, beta_r = ``betas[r]``                           |
| (3): w~_ui;r, Auxiliary Preference Valuator | ``weights``                                                  |
| (4) to (7): E_r^(l) = D~^-1/2 A~ D~^-1/2 E  | ``convolve``                                                 |
| (8) to (11): attention over behaviours      | ``fuse``: W_q = ``query_DD``, W_k = ``key_DD``, W_v = ``value_DD`` |
| (12): E* = g(E~_1, ..., E~_R)               | ``fuse``, ``union`` is g                                     |
| (14): y_ui = <e*_u, e*_i>                   | ``score`` of ``TwoTower``                                    |
| (15): L_SAT                                 | ``align``, ``valuator_l2`` is gamma_1                        |
| (16): L_BPR                                 | ``losses``, ``l2`` is gamma_2                                |
| (17): lambda_a L_SAT + (1 - lambda_a) L_BPR | ``losses``: the terms are weighted                           |

Deviations: BPR is the mean, not the sum, over the batch, as in the authors' code. ``alignment`` reads (15) in three
ways, since the printed difference lets w~ grow without bound and gives w no gradient: a softmax sums to one whatever
its inputs. Ours and off by default: ``shared_start``, ``readout``, ``l2_of`` the batch's rows, ``hide_positives``, the
spectral ``init``, ``value_init`` at zero.

Shape letters: B batch, U users, I items, N = U + I nodes, R behaviours, E edges, D embedding, K distinct nodes of the
batch, J a positive and its negatives, M = 1 + J with the user.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from macrorec.api import PairBatch, Pairwise, TwoTower
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Graph
from macrorec.ops.adjacency import Adjacency
from macrorec.ops.edges import normalise, propagate, weigh
from macrorec.ops.linear import csr_of, normalized, truncated_svd
from macrorec.ops.losses import bpr, l2_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class SWGCNConfig:
    """Values of the paper, section 5.1.4, where it gives them; those for Taobao where they differ between data sets."""

    dim: int = 32
    """D, length of the vectors."""
    n_layers: int = 3
    """L, layers of propagation."""
    self_loop: float = 1.0
    """Lambda_s of (4) to (6); section 5.4.1 prefers 1.0 on Taobao, .2 on Beibei."""
    alignment_weight: float = 0.9
    """Lambda_a of (17); section 5.4.2 prefers .9 on Taobao, .2 on Beibei."""
    alignment: Literal["difference", "squared", "product", "none"] = "squared"
    """What (15) sums: w - w~ as printed, (w - w~)^2, w w~ as in the authors' code; ``none`` is the ablation."""
    align_target: bool = False
    """Whether (15) sums over the target behaviour, too: SWGCN-T."""
    weigher: bool = True
    """Whether (2) weighs edges. The ablation without it has weights of one, and no alignment."""
    valuator_l2: float = 1e-5
    """Gamma_1 of (15)."""
    l2: float = 1e-5
    """Gamma_2 of (16)."""
    l2_of: Literal["all", "batch"] = "all"
    """Theta of (16): all parameters, |Theta|^2; or rows of E^(0) in the batch, squared, halved, per example."""
    dropout: float = 0.2
    """p_message, the share of E^(1), ..., E^(L) that training sets to zero (section 5.4.3)."""
    degrees: Literal["weighted", "counted"] = "weighted"
    """Of (7): row sums of A~; or numbers of edges, plus lambda_s."""
    readout: Literal["last", "mean"] = "last"
    """What is fused: E^(L); or the mean of E^(0) to E^(L)."""
    union: Literal["sum", "mean", "concat"] = "sum"
    """g of (12)."""
    shared_start: bool = False
    """Whether all behaviours start from one E^(0)."""
    init: Literal["xavier", "normal", "spectral"] = "xavier"
    """What E^(0) starts from: Xavier's uniform values for each table; N(0, init_std^2); or ``spectral`` vectors."""
    init_std: float = 0.1
    """Deviation of the normal distribution, or of the entries of the spectral vectors."""
    value_init: Literal["xavier", "zero"] = "xavier"
    """What W_v starts from; at zero, (11) starts as the identity."""
    hide_positives: bool = False
    """Whether training takes a batch's positives out of the target graph: no edge helps to predict itself."""
    n_negatives: int = 4
    """Negatives per positive."""
    true_negatives: bool = True
    """Whether a negative may be no train item of the user."""

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be at least 0 and below 1, not {self.dropout!r}")
        if not 0 <= self.alignment_weight <= 1:
            raise ConfigError(f"alignment_weight must lie between 0 and 1, not {self.alignment_weight!r}")
        if self.self_loop < 0:
            raise ConfigError(f"self_loop must be at least 0, not {self.self_loop!r}")


class SWGCN(TwoTower):
    """One graph convolution per behaviour over learned edge weights, fused by attention; BPR and alignment."""

    Config = SWGCNConfig
    config: SWGCNConfig
    target_E: Tensor
    """u I + i of each target edge, ascending."""

    def __init__(self, config: SWGCNConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.batches = Pairwise(n=config.n_negatives, true_negatives=config.true_negatives)
        self.adjacencies = nn.ModuleList(Adjacency(edges, graph.n_items) for edges in graph.edges)
        n_tables = 1 if config.shared_start else len(graph.edges)
        self.vectors = nn.ParameterList(torch.zeros(graph.n_nodes, config.dim) for _ in range(n_tables))
        self.betas = nn.ParameterList(torch.zeros(config.dim) for _ in graph.edges) if config.weigher else None
        self.query_DD, self.key_DD, self.value_DD = (nn.Parameter(torch.zeros(config.dim, config.dim)) for _ in "qkv")
        n_aligned = len(graph.edges) - (not config.align_target)
        wanted = config.weigher and config.alignment != "none"
        self.aligned = [r for r, edges in enumerate(graph.edges) if wanted and r < n_aligned and len(edges)]
        target_E = graph.target.user_E * graph.n_items + graph.target.item_E
        self.register_buffer("target_E", target_E, persistent=False)

    def initialise(self, generator: torch.Generator) -> None:
        """Matrices from Xavier's uniform values, betas as their row of d inputs and one output; E^(0) by ``init``."""
        for table_ND in self.vectors:
            if self.config.init == "xavier":
                nn.init.xavier_uniform_(table_ND, generator=generator)
            else:
                nn.init.normal_(table_ND, std=self.config.init_std, generator=generator)
        if self.config.init == "spectral":
            start_NK = self.spectral(generator)
            for table_ND in self.vectors:
                table_ND.data[:, : start_NK.shape[1]] = start_NK * (self.config.init_std / start_NK.std())
        for beta_D in self.betas or []:
            nn.init.xavier_uniform_(beta_D[None], generator=generator)
        for matrix_DD in (self.query_DD, self.key_DD, self.value_DD):
            nn.init.xavier_uniform_(matrix_DD, generator=generator)
        if self.config.value_init == "zero":
            nn.init.zeros_(self.value_DD)

    def spectral(self, generator: torch.Generator) -> Tensor:
        """(P S^1/2, Q S^1/2), (N, K), of D_u^-1/2 A D_i^-1/2 ~ P S Q'; A joins all behaviours, K = D or its rank."""
        graphs = [self.adjacency(r) for r in range(len(self.adjacencies))]
        edges = [(a.start_N[: a.n_users + 1], a.node_F[: len(a)] - a.n_users) for a in graphs]
        met = sum(csr_of(start_U, item_E, self.n_items) for start_U, item_E in edges)
        left_UK, s_K, right_IK = truncated_svd(normalized(met.sign()), self.config.dim, generator)
        start_NK: Tensor = torch.cat([left_UK, right_IK]) * s_K.sqrt()
        return start_NK.float()

    @classmethod
    def memory(cls, config: SWGCNConfig, graph: Graph) -> int:
        """Per behaviour, arrays (N, D): vectors, gradient, Adam's two, layers and their gradients; and 80 E bytes."""
        tables = len(graph.edges) * (8 + 2 * config.n_layers) * graph.n_nodes * config.dim
        return 4 * tables + 80 * sum(len(edges) for edges in graph.edges) + 64 * (graph.n_nodes + config.dim**2)

    def weights(self, r: int, hidden_H: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(2) and (3): w and w~ of the edges of behaviour r, (E,) each; ``hidden_H`` are left out of the graph."""
        if self.betas is None:
            one_E = self.start(r).new_ones(len(self.adjacency(r)))
            return (one_E if hidden_H is None else one_E.index_fill(0, hidden_H, 0)), torch.zeros_like(one_E)
        return weigh(self.adjacency(r), self.start(r), self.betas[r], hidden_H)

    def convolve(self, r: int, weight_E: Tensor, rows_K: Tensor | None = None, seeds: tuple[int, ...] = ()) -> Tensor:
        """(4) to (7): E_r^(L), (N, D), or its rows ``rows_K``; message dropout if there are ``seeds``."""
        adjacency, config = self.adjacency(r), self.config
        value_E, own_N = normalise(adjacency, weight_E, config.self_loop, counted=config.degrees == "counted")
        return propagate(
            adjacency,
            self.start(r),
            value_E,
            own_N,
            config.n_layers,
            mean=config.readout == "mean",
            rows_K=rows_K,
            dropout=config.dropout if seeds else 0.0,
            seeds=seeds,
        )

    def adjacency(self, r: int) -> Adjacency:
        """A_r."""
        adjacency = self.adjacencies[r]
        assert isinstance(adjacency, Adjacency)
        return adjacency

    def start(self, r: int) -> Tensor:
        """E_r^(0), (N, D)."""
        table_ND: Tensor = self.vectors[0 if self.config.shared_start else r]
        return table_ND

    def fuse(self, x_KRD: Tensor) -> Tensor:
        """(8) to (12): g of E~ = E + softmax(Q K' / sqrt(d)) V over the behaviours of each node: (K, D), or (K, R D).

        Q K' is E (W_q W_k') E', and sum and mean stand before W_v, for they are linear: one product per
        behaviour and one per node are left of three per behaviour.
        """
        query_KRD = x_KRD @ (self.query_DD @ self.key_DD.T / self.config.dim**0.5)
        attention_KRR = (query_KRD @ x_KRD.transpose(1, 2)).softmax(2)
        if self.config.union == "concat":
            fused_KRD: Tensor = x_KRD + attention_KRR @ x_KRD @ self.value_DD
            return fused_KRD.flatten(1)
        heard_KD = (attention_KRR.sum(1, keepdim=True) @ x_KRD).squeeze(1)
        fused_KD: Tensor = x_KRD.sum(1) + heard_KD @ self.value_DD
        return fused_KD / x_KRD.shape[1] if self.config.union == "mean" else fused_KD

    def align(self, weight_E: Tensor, distance_E: Tensor) -> Tensor:
        """(15) for one behaviour, without 1/R: the mean over edges, and gamma_1 |w~|^2."""
        if self.config.alignment == "product":
            aligned_E = weight_E * distance_E
        else:
            aligned_E = weight_E - distance_E
            aligned_E = aligned_E.square() if self.config.alignment == "squared" else aligned_E
        return aligned_E.mean() + self.config.valuator_l2 * distance_E.square().sum()

    def encode(self) -> tuple[Tensor, Tensor]:
        layers = [self.convolve(r, self.weights(r)[0]) for r in range(len(self.adjacencies))]
        users_UD, items_ID = self.fuse(torch.stack(layers, 1)).tensor_split([self.n_users])
        return users_UD, items_ID

    def losses(self, batch: PairBatch) -> dict[str, Tensor]:
        config, n_behaviors = self.config, len(self.adjacencies)
        items_BJ = self.n_users + torch.cat([batch.items_B[:, None], batch.negatives_BN], 1)
        nodes_BM = torch.cat([batch.users_B[:, None], items_BJ], 1)
        rows_K, place_BM = torch.unique(nodes_BM, return_inverse=True)
        hidden = [self.hidden(batch) if r == n_behaviors - 1 else None for r in range(n_behaviors)]
        edges = [self.weights(r, hidden[r]) for r in range(n_behaviors)]
        seeds = self.seeds(batch.generator)
        layers = [self.convolve(r, edges[r][0], rows_K, seeds[r]) for r in range(n_behaviors)]
        final_KD = self.fuse(torch.stack(layers, 1))
        users_BD, others_BJD = embedding(place_BM, final_KD).tensor_split([1], dim=1)
        score_BJ = (users_BD * others_BJD).sum(-1)
        share = config.alignment_weight if self.aligned else 0.0
        terms = {
            "bpr": (1 - share) * bpr(score_BJ[:, 0], score_BJ[:, 1:]),
            "l2": (1 - share) * config.l2 * self.penalty(nodes_BM),
        }
        if self.aligned:
            aligned = torch.stack([self.align(*edges[r]) for r in self.aligned])
            terms["alignment"] = share * aligned.sum() / n_behaviors
        return terms

    def penalty(self, nodes_BM: Tensor) -> Tensor:
        """|Theta|^2 of (16)."""
        if self.config.l2_of == "batch":
            return torch.stack([l2_rows(embedding(nodes_BM, table_ND)) for table_ND in self.vectors]).sum()
        return torch.stack([parameter.square().sum() for parameter in self.parameters()]).sum()

    def hidden(self, batch: PairBatch) -> Tensor | None:
        """Numbers of the batch's positives among the target's edges, where training hides them."""
        if not self.config.hide_positives:
            return None
        return torch.searchsorted(self.target_E, batch.users_B * self.n_items + batch.items_B)

    def seeds(self, generator: torch.Generator) -> list[tuple[int, ...]]:
        """What decides on message dropout: per behaviour, one number for each layer, or none."""
        shape = (len(self.adjacencies), self.config.n_layers)
        if not self.config.dropout or not self.training:
            return [()] * shape[0]
        drawn = torch.randint(1 << 62, shape, generator=generator, device=generator.device)
        return [tuple(row) for row in drawn.tolist()]

    def edge_weights(self) -> tuple[Tensor, ...] | None:
        """(2) per behaviour, aligned with ``graph.edges``; None without the weigher."""
        if self.betas is None:
            return None
        with torch.no_grad():
            return tuple(self.weights(r)[0] for r in range(len(self.adjacencies)))


MODEL = SWGCN
