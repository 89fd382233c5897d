"""Retarget: show people again what they looked at, best first where most lookers bought; nothing is learned.

    score(u, i) = (b_i + a) / (n_i + b)       for i in O_u: u met i in an auxiliary behaviour, and has not bought it
    score(u, i) = c_i - (max_j c_j + 1) < 0   for all other items: by number of buyers c_i

| symbol   | here                                                                                               |
|----------|----------------------------------------------------------------------------------------------------|
| O_u      | ``own``, the pairs (u, i), U x I as sparse as the log                                              |
| n_i, b_i | ``rates``: users who met i, all users who bought i; or, by ``sets``, only those users who met i in |
|          | the same set of behaviours as u, so that an item viewed and carted has a rate of its own           |
| a, b     | the mean rate a / b, which counts as much as b users; by ``sets`` the mean is that of the set      |

The rule that every table of several behaviours must beat.

Deviations: none. Shape letters: B batch, U users, I items, E own pairs, Q pairs of any auxiliary behaviour, K keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from macrorec.api import Model, take_rows
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Edges, Graph


@dataclass(frozen=True, kw_only=True, slots=True)
class RetargetConfig:
    """What counts as an item of one's own, and how its rate is counted."""

    behaviors: tuple[str, ...] = ()
    """Names of the auxiliary behaviours that make an item one's own; (): all of them."""
    rates: Literal["item", "sets"] = "item"
    """``item``: one rate per item; ``sets``: one per item and set of auxiliary behaviours."""
    a: float = 1.0
    """Buyers that every item has beforehand; of no effect with ``sets``."""
    b: float = 10.0
    """Users who met it that every item has beforehand."""

    def __post_init__(self) -> None:
        if self.a < 0 or self.b <= 0:
            raise ConfigError(f"retarget needs a >= 0 and b > 0; got a={self.a}, b={self.b}")


class Retarget(Model):
    """Own items by their rate, then all others by popularity. Everything follows from the graph."""

    Config = RetargetConfig
    config: RetargetConfig
    exceptions: ClassVar[dict[str, str]] = {
        "checkerboard_is_learned": "without auxiliary behaviours all users get the same scores",
        "fold_in_of_a_colour_prefers_that_colour": "new users without auxiliary items all get the same scores",
    }
    start_U: Tensor
    item_E: Tensor
    rate_E: Tensor
    others_I: Tensor

    def __init__(self, config: RetargetConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.refresh(graph)

    @classmethod
    def memory(cls, config: RetargetConfig, graph: Graph) -> int:
        return 200 * sum(map(len, graph.edges)) + 16 * graph.n_nodes

    def refresh(self, graph: Graph) -> None:
        """Count anew; where ``rates`` differ by sets, only pairs of the same set count for a pair."""
        key_Q, set_Q = self.own(graph)
        bought_Q = torch.isin(key_Q, _keys(graph.target, graph.n_items))
        rate_Q = self.rates(graph, key_Q % max(graph.n_items, 1), set_Q, bought_Q)
        user_E, item_E = key_Q[~bought_Q] // max(graph.n_items, 1), key_Q[~bought_Q] % max(graph.n_items, 1)
        start_U = torch.zeros(graph.n_users + 1, dtype=torch.int64)
        torch.cumsum(torch.bincount(user_E, minlength=graph.n_users), 0, out=start_U[1:])
        count_I = graph.target.degrees(graph.n_items)[1].float()
        others_I = count_I - (count_I.max() + 1) if len(count_I) else count_I
        own = {"start_U": start_U, "item_E": item_E, "rate_E": rate_Q[~bought_Q], "others_I": others_I}
        for name, value in own.items():
            device = getattr(self, name, value).device
            self.register_buffer(name, value.to(device), persistent=False)

    def own(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """The pairs (Q,), ascending, as u I + i, and the set of behaviours of each as a number (Q,)."""
        auxiliary = [behavior.name for behavior in graph.behaviors[:-1]]
        if unknown := [name for name in self.config.behaviors if name not in auxiliary]:
            raise ConfigError(f"retarget: {unknown[0]!r} is no auxiliary behaviour; there are {', '.join(auxiliary)}")
        wanted = self.config.behaviors or auxiliary
        key_Q, set_Q = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
        for edges in (graph.edges[auxiliary.index(name)] for name in wanted):
            both = torch.cat([key_Q, _keys(edges, graph.n_items)])
            key_Q, at = torch.unique(both, return_inverse=True)
            number = torch.cat([2 * set_Q, torch.ones(len(edges), dtype=torch.int64)])
            set_Q = torch.zeros_like(key_Q).index_add_(0, at, number)
        return key_Q, set_Q

    def rates(self, graph: Graph, item_Q: Tensor, set_Q: Tensor, bought_Q: Tensor) -> Tensor:
        """The rate of each pair's item, (Q,)."""
        if self.config.rates == "item":
            met_I = torch.bincount(item_Q, minlength=graph.n_items)
            rate_I = (graph.target.degrees(graph.n_items)[1] + self.config.a) / (met_I + self.config.b)
            return rate_I[item_Q]
        bought_K, met_K, of_Q = _counts(set_Q * graph.n_items + item_Q, bought_Q)
        bought_S, met_S, set_of_Q = _counts(set_Q, bought_Q)
        mean_Q = (bought_S / met_S)[set_of_Q]
        return (bought_K[of_Q] + self.config.b * mean_Q) / (met_K[of_Q] + self.config.b)

    def solve(self, graph: Graph, generator: torch.Generator) -> None:
        """There is nothing to fit."""

    def score_all(self, users_B: Tensor) -> Tensor:
        start_B, items_E = take_rows(self.start_U, self.item_E, users_B)
        _, rates_E = take_rows(self.start_U, self.rate_E, users_B)
        row_E = torch.arange(len(users_B), device=users_B.device).repeat_interleave(start_B.diff())
        scores_BI = self.others_I.repeat(len(users_B), 1)
        scores_BI[row_E, items_E] = rates_E
        return scores_BI

    def fold_in(self, history: Edges) -> Tensor:
        """New users come with what they bought, and have nothing of their own to return to."""
        return self.others_I.repeat(len(history.start_U) - 1, 1)


def _keys(edges: Edges, n_items: int) -> Tensor:
    return edges.user_E * n_items + edges.item_E


def _counts(key_Q: Tensor, bought_Q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Per distinct key the pairs that are bought (K,), and all pairs (K,); and the place of each pair's key (Q,)."""
    distinct_K, of_Q = torch.unique(key_Q, return_inverse=True)
    met_K = torch.bincount(of_Q, minlength=len(distinct_K))
    return torch.bincount(of_Q[bought_Q], minlength=len(distinct_K)), met_K, of_Q


MODEL = Retarget
