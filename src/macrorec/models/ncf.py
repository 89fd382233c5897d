"""NCF: whether a user chooses an item, by a product of their vectors, by a perceptron over both, or by both ways.

He, Liao, Zhang, Nie, Hu & Chua, Neural collaborative filtering (WWW 2017).

| equation                                          | here                                                  |
|---------------------------------------------------|-------------------------------------------------------|
| (7): log loss, negatives drawn anew per epoch     | ``losses``, ``batches``                               |
| (9), (11): GMF = h.(p o q)                        | ``gmf``                                               |
| (10): MLP = h.ReLU(W_L ... ReLU(W_1 [p; q]))      | ``mlp``                                               |
| (12): NeuMF = h.[GMF; MLP], vectors not shared    | ``logits``; tables hold the vectors of both, abreast  |

``kind`` says which of the three. GMF is an inner product, <h o p, q>, so that it can retrieve: class ``GMF``. The other
two score all pairs with the first layer split, W [p; q] = W_p p + W_q q.

Deviations: NeuMF is learned at once, by Adam, not from GMF and MLP learned before. Scores are logits: the sigmoid
leaves their order. A constant is added to all logits, as in the authors' code, and left out of GMF's scores. ``l2`` and
``dropout`` are ours, and so is folding in: a new user is the mean, over its items, of the mean user of the item.

Shape letters: B rows of a batch, U users, I items, E edges of new users, D width of a table or of its half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from macrorec.api import Model, PointBatch, Pointwise, TwoTower
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Edges, Graph
from macrorec.ops.losses import bce, l2_rows
from macrorec.ops.mlp import MLP, n_weights
from macrorec.ops.pairs import mlp_of_pairs
from macrorec.ops.spmm import SparseMatrix, spmm


@dataclass(frozen=True, kw_only=True, slots=True)
class NCFConfig:
    """Values of the authors' code, where it gives them."""

    kind: Literal["gmf", "mlp", "neumf"] = "neumf"
    """``gmf``: (9); ``mlp``: (10); ``neumf``: (12)."""
    dim: int = 32
    """Length of a vector; NeuMF has two per user and item."""
    hidden: tuple[int, ...] = (32, 16, 8)
    """Widths of the layers over [p; q]."""
    dropout: float = 0.0
    """Share of hidden units that training leaves out."""
    l2: float = 0.0
    """Lambda of the l2 term: squared, halved, per row of the batch, vectors of the batch only."""
    init_std: float = 0.01
    """Deviation of the normal distribution that vectors start from."""
    n_negatives: int = 4
    """Negatives per positive."""
    true_negatives: bool = True
    """Whether a negative may be no train item of the user."""

    def __post_init__(self) -> None:
        if self.dim < 1 or any(width < 1 for width in self.hidden):
            raise ConfigError(f"dim and hidden must be at least 1, not {self.dim} and {list(self.hidden)}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be at least 0 and below 1, not {self.dropout!r}")


class NCF(Model):
    """MLP or NeuMF; ``from_graph`` makes a ``GMF`` where the config says so."""

    Config = NCFConfig
    config: NCFConfig

    def __init__(self, config: NCFConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.batches = Pointwise(n=config.n_negatives, true_negatives=config.true_negatives)
        width = config.dim * (2 if config.kind == "neumf" else 1)
        self.users_UD = nn.Parameter(torch.zeros(graph.n_users, width))
        self.items_ID = nn.Parameter(torch.zeros(graph.n_items, width))
        if config.kind != "mlp":
            self.h_D = nn.Parameter(torch.zeros(config.dim))
        if config.kind == "gmf":
            self.constant = nn.Parameter(torch.zeros(()))
        else:
            self.tower = MLP(2 * config.dim, config.hidden, "relu", config.dropout)
        edges = graph.target
        shape = (graph.n_users, graph.n_items)
        self.chosen = SparseMatrix(edges.user_E, edges.item_E, torch.ones(len(edges)), shape)

    @classmethod
    def from_graph(cls, config: NCFConfig, graph: Graph, generator: torch.Generator) -> Self:
        """The model of ``config.kind``, initialised from ``generator`` (CPU)."""
        kind = GMF if config.kind == "gmf" else NCF
        model = kind(config, graph)
        model.initialise(generator)
        assert isinstance(model, cls)
        return model

    def initialise(self, generator: torch.Generator) -> None:
        """Vectors: N(0, init_std^2). h of GMF: uniform, as LeCun's. Matrices: Xavier, uniform. Biases: 0."""
        nn.init.normal_(self.users_UD, std=self.config.init_std, generator=generator)
        nn.init.normal_(self.items_ID, std=self.config.init_std, generator=generator)
        if self.config.kind != "mlp":
            bound = (3 / self.config.dim) ** 0.5
            nn.init.uniform_(self.h_D, -bound, bound, generator=generator)
        if self.config.kind != "gmf":
            self.tower.initialise(generator)

    @classmethod
    def memory(cls, config: NCFConfig, graph: Graph) -> int:
        """Tables and perceptron with gradient and Adam's two moments; target edges; hidden units of 8,192 pairs."""
        weights = 2 * graph.n_nodes * config.dim + config.dim + 1 + n_weights(2 * config.dim, config.hidden)
        return 4 * 4 * weights + 96 * len(graph.target) + 4 * 8192 * (2 * config.dim + 2 * sum(config.hidden))

    def gmf(self, p_BD: Tensor, q_BD: Tensor) -> Tensor:
        """(9), shape (B,)."""
        return (p_BD * q_BD) @ self.h_D

    def mlp(self, p_BD: Tensor, q_BD: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(10), shape (B,); ``generator`` draws what dropout leaves out."""
        logit_B: Tensor = self.tower(torch.cat([p_BD, q_BD], 1), generator)
        return logit_B

    def logits(self, p_BD: Tensor, q_BD: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(9), (10) or (12), shape (B,)."""
        match self.config.kind:
            case "gmf":
                return self.gmf(p_BD, q_BD) + self.constant
            case "mlp":
                return self.mlp(p_BD, q_BD, generator)
            case "neumf":
                (p_g, p_m), (q_g, q_m) = p_BD.chunk(2, 1), q_BD.chunk(2, 1)
                return self.gmf(p_g, q_g) + self.mlp(p_m, q_m, generator)

    def losses(self, batch: PointBatch) -> dict[str, Tensor]:
        p_BD, q_BD = embedding(batch.users_B, self.users_UD), embedding(batch.items_B, self.items_ID)
        terms = {"bce": bce(self.logits(p_BD, q_BD, batch.generator), batch.labels_B)}  # (7)
        return terms | ({"l2": self.config.l2 * l2_rows(p_BD, q_BD)} if self.config.l2 else {})

    def score(self, users_B: Tensor, items_B: Tensor) -> Tensor:
        return self.logits(self.users_UD[users_B], self.items_ID[items_B])

    def score_all(self, users_B: Tensor) -> Tensor:
        return self._scores(self.users_UD[users_B], self.items_ID)

    def score_some(self, users_B: Tensor, items_C: Tensor) -> Tensor:
        return self._scores(self.users_UD[users_B], self.items_ID[items_C])

    def _scores(self, p_BD: Tensor, q_ID: Tensor) -> Tensor:
        """``logits`` of all pairs, shape (B, I), without GMF's constant."""
        if self.config.kind == "gmf":
            return (p_BD * self.h_D) @ q_ID.T
        if self.config.kind == "mlp":
            return mlp_of_pairs(self.tower, p_BD, q_ID)
        (p_g, p_m), (q_g, q_m) = p_BD.chunk(2, 1), q_ID.chunk(2, 1)
        return mlp_of_pairs(self.tower, p_m, q_m).addmm_(p_g * self.h_D, q_g.T)

    def fold_in(self, history: Edges) -> Tensor:
        """Scores (B, I) of new users: each the mean, over its items, of the mean of the item's train users."""
        device = self.users_UD.device
        user_E, item_E, size_B = history.user_E.to(device), history.item_E.to(device), history.start_U.to(device).diff()
        degree_I = self.chosen.side(transpose=True)[0].diff()
        mean_ID = spmm(self.chosen, self.users_UD, transpose=True) / degree_I.clamp(min=1)[:, None]
        p_BD = mean_ID.new_zeros(len(size_B), mean_ID.shape[1]).index_add_(0, user_E, mean_ID[item_E])
        return self._scores(p_BD / size_B.clamp(min=1)[:, None], self.items_ID)


class GMF(TwoTower, NCF):
    """GMF: score(u, i) = <h o p_u, q_i>, without the constant."""

    def encode(self) -> tuple[Tensor, Tensor]:
        return self.users_UD * self.h_D, self.items_ID


MODEL = NCF
