"""FM: a weight per feature, and for every pair of features the inner product of their vectors.

Rendle, Factorization machines (ICDM 2010).

| equation                                                        | here                       |
|-----------------------------------------------------------------|----------------------------|
| (1): y = w_0 + sum_j w_j x_j + sum_{j<k} <v_j, v_k> x_j x_k     | ``logits``                 |
| (5): 1/2 sum_f [(sum_j v_jf x_j)^2 - sum_j v_jf^2 x_j^2]        | ``interactions``           |
| figure 1: a set of features is divided by its size              | ``ops.fields``             |

Pairs are of features, those within a field included, such as two recent items. Deviations: logistic loss with Adam
instead of single steps of gradient descent; L2 is the optimiser's, ``train.weight_decay``.

Shape letters: B impressions, D = k of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from macrorec.api import Ranker
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Graph
from macrorec.graph.columns import Features
from macrorec.ops.fields import FieldTables, Seen, n_features, read, sizes


@dataclass(frozen=True, kw_only=True, slots=True)
class FMConfig:
    """The paper gives no values; ``dim`` is that of MacGNN."""

    fields: Seen = "history"
    """``ids``: user, item, their groups; ``history``: and their recents; ``macro``: and their macro rows; ``volumes``:
    and how many events they have."""
    dim: int = 10
    """Length of the vectors."""
    shared: bool = False
    """Whether an item has one vector, as candidate and as a recent item, and so users and groups; not in the paper."""
    std: float = 0.01
    """Standard deviation of the initial vectors."""

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ConfigError(f"dim must be at least 1, not {self.dim}")


class FM(Ranker):
    """The factorisation machine of order 2, in time linear in the number of features."""

    Config = FMConfig
    config: FMConfig

    def __init__(self, config: FMConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.size = sizes(graph.n_users, graph.n_items, self.macro)
        self.bias = nn.Parameter(torch.zeros(()))
        self.weights = FieldTables(config.fields, self.size, 1)
        self.vectors = FieldTables(config.fields, self.size, config.dim, shared=config.shared)

    def initialise(self, generator: torch.Generator) -> None:
        """Vectors: N(0, std^2). Weights and bias: 0."""
        self.vectors.initialise(generator, self.config.std)

    @classmethod
    def memory(cls, config: FMConfig, graph: Graph) -> int:
        """A vector and a weight per feature, with gradient and Adam's two moments."""
        return 4 * 4 * (n_features(config.fields, graph) * (config.dim + 1) + 1)

    def logits(self, features: Features) -> Tensor:
        """(1), shape (B,)."""
        fields = read(features, self.config.fields, self.size)
        linear_B = torch.cat(self.weights.sums(fields), 1).sum(1)
        sums, squares = zip(*self.vectors.sums_and_squares(fields), strict=True)
        return self.bias + linear_B + interactions(torch.stack(sums, 1), torch.stack(squares, 1))


def interactions(sum_BFD: Tensor, square_BFD: Tensor) -> Tensor:
    """(5), given sum_j v_j x_j and sum_j (v_j x_j)^2 over each of F fields; shape (B,)."""
    return (sum_BFD.sum(1).square() - square_BFD.sum(1)).sum(1) / 2


MODEL = FM
