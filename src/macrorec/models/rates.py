"""Rates: how often is the item liked, how often does the user like? Two counts for each, and nothing learned.

    r_v = (positives of v + k m) / (rows of v + k),  m = the share of positives among all rows
    logit(u, i) = logit r_u + logit r_i - logit m

The rule that every table of click predictions must beat: the odds of user and item multiply, each drawn to the mean by
k rows. Rows are those of the target behaviour with a label. In a log without labels edges are the positives, and every
pair of a user and an item is a row.

Deviations: none. Shape letters: B batch, U users, I items.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from macrorec.api import Model
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Edges, Graph


@dataclass(frozen=True, kw_only=True, slots=True)
class RatesConfig:
    """How far counts are trusted."""

    user_prior: float = 10.0
    """k of users, in rows."""
    item_prior: float = 10.0
    """k of items, in rows."""

    def __post_init__(self) -> None:
        for name in ("user_prior", "item_prior"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be finite and above 0, not {getattr(self, name)!r}")


class Rates(Model):
    """The odds of the item times the odds of the user."""

    Config = RatesConfig
    config: RatesConfig
    exceptions: ClassVar[dict[str, str]] = {
        "checkerboard_is_learned": "all users rank the items alike",
        "fold_in_of_a_colour_prefers_that_colour": "all users rank the items alike",
    }
    user_U: Tensor
    item_I: Tensor

    def __init__(self, config: RatesConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.register_buffer("user_U", torch.zeros(graph.n_users))
        self.register_buffer("item_I", torch.zeros(graph.n_items))

    @classmethod
    def memory(cls, config: RatesConfig, graph: Graph) -> int:
        return 32 * graph.n_nodes

    def solve(self, graph: Graph, generator: torch.Generator) -> None:
        liked_U, liked_I, rows_U, rows_I = counts(graph)
        mean = (float(liked_U.sum()) + 1) / (float(rows_U.sum()) + 2)  # never 0 or 1
        base = math.log(mean / (1 - mean))
        for logit, liked, rows, prior in (
            (self.user_U, liked_U, rows_U, self.config.user_prior),
            (self.item_I, liked_I, rows_I, self.config.item_prior),
        ):
            logit.copy_(torch.logit((liked + prior * mean) / (rows + prior)))
        self.item_I.sub_(base)

    def score(self, users_B: Tensor, items_B: Tensor) -> Tensor:
        return self.user_U[users_B] + self.item_I[items_B]

    def score_all(self, users_B: Tensor) -> Tensor:
        return self.user_U[users_B, None] + self.item_I

    def fold_in(self, history: Edges) -> Tensor:
        """Of a new user only likes are known, and nothing of how often: the rate is the mean."""
        return self.item_I.repeat(len(history.start_U) - 1, 1)


def counts(graph: Graph) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Positives per user and per item, and rows per user and per item, float64."""
    if graph.labelled is None:
        liked_U, liked_I = (degrees.double() for degrees in graph.target.degrees(graph.n_items))
        return liked_U, liked_I, torch.full_like(liked_U, graph.n_items), torch.full_like(liked_I, graph.n_users)
    log = graph.labelled
    label_E = torch.from_numpy(log.label).double()
    known = (torch.from_numpy(log.behavior) == log.target) & ~label_E.isnan()
    user_E, item_E = (torch.from_numpy(numbers).long()[known] for numbers in (log.user, log.item))
    return (
        torch.bincount(user_E, label_E[known], minlength=graph.n_users),
        torch.bincount(item_E, label_E[known], minlength=graph.n_items),
        torch.bincount(user_E, minlength=graph.n_users).double(),
        torch.bincount(item_E, minlength=graph.n_items).double(),
    )


MODEL = Rates
