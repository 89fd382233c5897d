"""DeepFM: a factorisation machine and an MLP on the same embeddings.

Guo, Tang, Ye, Li & He, DeepFM: a factorization-machine based neural network for CTR prediction (IJCAI 2017).

| equation                                                          | here                             |
|-------------------------------------------------------------------|----------------------------------|
| (1): y = sigmoid(y_FM + y_DNN)                                    | ``logits``                       |
| (2): y_FM = <w, x> + sum_{j<k} <V_j, V_k> x_j x_k                 | ``interactions``, linear in time |
| (3): a^(0) = [e_1, ..., e_m], the embedding of each field         | e = sum_j x_j V_j                |
| (4): a^(l+1) = g(W^(l) a^(l) + b^(l)), y_DNN = W a + b            | ``ops.mlp.MLP``, g = ReLU        |

Deviations: none but the sizes named in the config. L2 is the optimiser's, ``train.weight_decay``.

Shape letters: B impressions, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from macrorec.api import ImpressionBatch, Ranker
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Graph
from macrorec.graph.columns import Features
from macrorec.ops.fields import FieldTables, Seen, n_features, names, read, sizes
from macrorec.ops.losses import bce
from macrorec.ops.mlp import MLP, n_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepFMConfig:
    """Sizes are MacGNN's, so that capacity is alike; the paper's are 400-400-400, half of the units dropped."""

    fields: Seen = "history"
    """``ids``: user, item, their groups; ``history``: and their recents; ``macro``: and their macro rows; ``volumes``:
    and how many events they have."""
    dim: int = 10
    """Length of the embeddings; 10 in the paper, too."""
    hidden: tuple[int, ...] = (200, 80)
    """Widths of the hidden layers; (400, 400, 400) in the paper."""
    shared: bool = False
    """Whether an item has one embedding, as candidate and as a recent item, and so users and groups; ours."""
    dropout: float = 0.0
    """Share of hidden units that training leaves out; .5 in the paper."""
    std: float = 0.01
    """Standard deviation of the initial embeddings."""

    def __post_init__(self) -> None:
        if self.dim < 1 or any(width < 1 for width in self.hidden):
            raise ConfigError(f"dim and hidden must be at least 1, not {self.dim} and {list(self.hidden)}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be at least 0 and below 1, not {self.dropout!r}")


class DeepFM(Ranker):
    """The sum of both parts, which share their embeddings."""

    Config = DeepFMConfig
    config: DeepFMConfig

    def __init__(self, config: DeepFMConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.size = sizes(graph.n_users, graph.n_items, self.macro)
        self.weights = FieldTables(config.fields, self.size, 1)
        self.vectors = FieldTables(config.fields, self.size, config.dim, shared=config.shared)
        self.mlp = MLP(len(names(config.fields)) * config.dim, config.hidden, "relu", config.dropout)

    def initialise(self, generator: torch.Generator) -> None:
        """Embeddings: N(0, std^2). MLP: Xavier. Weights: 0."""
        self.vectors.initialise(generator, self.config.std)
        self.mlp.initialise(generator)

    @classmethod
    def memory(cls, config: DeepFMConfig, graph: Graph) -> int:
        """A vector and a weight per feature, and the MLP, with gradient and Adam's two moments."""
        mlp = n_weights(len(names(config.fields)) * config.dim, config.hidden)
        return 4 * 4 * (n_features(config.fields, graph) * (config.dim + 1) + mlp)

    def logits(self, features: Features, generator: torch.Generator | None = None) -> Tensor:
        """y_FM + y_DNN of (1), shape (B,)."""
        fields = read(features, self.config.fields, self.size)
        linear_B = torch.cat(self.weights.sums(fields), 1).sum(1)  # (2)
        sums, squares = zip(*self.vectors.sums_and_squares(fields), strict=True)
        y_DNN: Tensor = self.mlp(torch.cat(sums, 1), generator)  # (3), (4)
        return linear_B + interactions(torch.stack(sums, 1), torch.stack(squares, 1)) + y_DNN

    def losses(self, batch: ImpressionBatch) -> dict[str, Tensor]:
        return {"bce": bce(self.logits(batch.features, batch.generator), batch.labels_B)}


def interactions(sum_BFD: Tensor, square_BFD: Tensor) -> Tensor:
    """sum_{j<k} <V_j, V_k> x_j x_k of (2), given sum_j V_j x_j and sum_j (V_j x_j)^2 over each of F fields; (B,)."""
    return (sum_BFD.sum(1).square() - square_BFD.sum(1)).sum(1) / 2


MODEL = DeepFM
