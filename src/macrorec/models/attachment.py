"""Preferential attachment: who has many edges gets the next one.

Liben-Nowell & Kleinberg, The link-prediction problem for social networks (JASIST 2007), sec. 3.2, for two sides.

    equation                          here
    score(x, y) = |N(x)| |N(y)|       <[d_u + smoothing], [d_i + smoothing]>

The rule that every table of link prediction must contain where non-edges are drawn uniformly: it knows nothing of who
likes what, and ranks items for all users alike.

Deviations: ``smoothing``, without which a node without edges in train hides the degree of the other.
Shape letters: B batch, U users, I items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from macrorec.api import TwoTower
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Edges, Graph


@dataclass(frozen=True, kw_only=True, slots=True)
class AttachmentConfig:
    """What is added to degrees."""

    smoothing: float = 1.0
    """Added to every degree. 0: as published."""

    def __post_init__(self) -> None:
        if not self.smoothing >= 0:
            raise ConfigError(f"attachment needs smoothing >= 0; got {self.smoothing}")


class Attachment(TwoTower):
    """The product of two degrees."""

    Config = AttachmentConfig
    config: AttachmentConfig
    exceptions: ClassVar[dict[str, str]] = {
        "checkerboard_is_learned": "all users rank items alike",
        "fold_in_of_a_colour_prefers_that_colour": "all users rank items alike",
    }
    degree_U: Tensor
    degree_I: Tensor

    def __init__(self, config: AttachmentConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.register_buffer("degree_U", torch.zeros(graph.n_users))
        self.register_buffer("degree_I", torch.zeros(graph.n_items))

    @classmethod
    def memory(cls, config: AttachmentConfig, graph: Graph) -> int:
        return 16 * graph.n_nodes

    def solve(self, graph: Graph, generator: torch.Generator) -> None:
        self.refresh(graph)

    def refresh(self, graph: Graph) -> None:
        degree_U, degree_I = graph.target.degrees(graph.n_items)
        self.degree_U.copy_(degree_U[: self.n_users])  # those who came later are folded in
        self.degree_I.copy_(degree_I)

    def encode(self) -> tuple[Tensor, Tensor]:
        more = self.config.smoothing
        return (self.degree_U + more)[:, None], (self.degree_I + more)[:, None]

    def fold_in_vectors(self, history: Edges) -> Tensor:
        return (history.start_U.diff().to(self.degree_I) + self.config.smoothing)[:, None]


MODEL = Attachment
