"""EASE: every item is explained by the others, by ridge regression without a diagonal.

Steck, Embarrassingly shallow autoencoders for sparse data (WWW 2019).

    equation                                here
    P = (X^T X + l2 I)^-1          (7)      gram, inverse_
    B[h, i] = -P[h, i] / P[i, i]   (8)      weight_II, zero diagonal
    score(u, :) = X_u B            (1)      apply_rows

Deviations: none. X holds ones for target edges, not counts. Shape letters: B batch, I items, H items of a user.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]
from torch.nn.functional import embedding_bag

from macrorec.api import ItemLinear
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Graph
from macrorec.ops.linear import gram, inverse_


@dataclass(frozen=True, kw_only=True, slots=True)
class EASEConfig:
    """Ridge regression."""

    l2: float = 500.0
    """lambda of eq. 7. The paper's best: 200 to 1000, depending on the data."""
    precision: Literal["float64", "float32"] = "float64"
    """Of the inversion; weights are kept in float32."""

    def __post_init__(self) -> None:
        if not self.l2 > 0:
            raise ConfigError(f"ease needs l2 > 0; got {self.l2}")


class EASE(ItemLinear):
    """One dense item-to-item matrix: for catalogues up to some ten thousand items."""

    Config = EASEConfig
    config: EASEConfig
    weight_II: Tensor

    def __init__(self, config: EASEConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.register_buffer("weight_II", torch.zeros(graph.n_items, graph.n_items))

    @classmethod
    def memory(cls, config: EASEConfig, graph: Graph) -> int:
        solving = 8 if config.precision == "float64" else 4
        blocks = 16 * min(graph.n_items, 1024) * graph.n_items  # of the gram matrix, then of the inversion
        return (solving + 4) * graph.n_items**2 + blocks + 48 * (len(graph.target) + graph.n_users)

    def solve(self, graph: Graph, generator: torch.Generator) -> None:
        precision = getattr(torch, self.config.precision)
        gram_II = gram(graph.target.csr(graph.n_items), precision).to(self.weight_II.device)
        gram_II.diagonal().add_(self.config.l2)
        try:
            inverse_II = inverse_(gram_II)  # (7)
        except LinAlgError:
            hint = "raise l2" + (', or set precision to "float64"' if self.config.precision == "float32" else "")
            raise ConfigError(f"ease cannot invert with l2 = {self.config.l2:g} in {precision}: {hint}") from None
        self.weight_II.copy_(inverse_II.div_(-inverse_II.diagonal().clone()))  # (8)
        self.weight_II.fill_diagonal_(0)

    def apply_rows(self, start_B: Tensor, items_E: Tensor) -> Tensor:
        return embedding_bag(items_E, self.weight_II, start_B[:-1], mode="sum")

    def similar(self, items_H: Tensor, items_B: Tensor) -> Tensor:
        return self.weight_II[items_H][:, items_B]


MODEL = EASE
