"""Popular: everybody gets the items that most users chose.

    score(u, i) = number of users with a target edge to i

The rule that every comparison must beat; also the answer of last resort for users without history.

Deviations: none. Shape letters: B batch, I items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from macrorec.api import Model
from macrorec.graph.bipartite import Edges, Graph


@dataclass(frozen=True, kw_only=True, slots=True)
class PopularConfig:
    """Popular has nothing to set."""


class Popular(Model):
    """Scores an item by its number of users in train."""

    Config = PopularConfig
    config: PopularConfig
    exceptions: ClassVar[dict[str, str]] = {
        "checkerboard_is_learned": "all users get the same scores",
        "fold_in_of_a_colour_prefers_that_colour": "all users get the same scores",
    }
    count_I: Tensor

    def __init__(self, config: PopularConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.register_buffer("count_I", torch.zeros(graph.n_items))

    @classmethod
    def memory(cls, config: PopularConfig, graph: Graph) -> int:
        return 16 * graph.n_items

    def solve(self, graph: Graph, generator: torch.Generator) -> None:
        self.refresh(graph)

    def refresh(self, graph: Graph) -> None:
        self.count_I.copy_(graph.target.degrees(graph.n_items)[1])

    def score(self, users_B: Tensor, items_B: Tensor) -> Tensor:
        return self.count_I[items_B]

    def score_all(self, users_B: Tensor) -> Tensor:
        return self.count_I.repeat(len(users_B), 1)

    def fold_in(self, history: Edges) -> Tensor:
        return self.count_I.repeat(len(history.start_U) - 1, 1)


MODEL = Popular
