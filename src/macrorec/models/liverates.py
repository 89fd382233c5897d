"""Live rates: how often is the item liked, how often does the user like, as of now? Nothing learned but the mean.

    r_v = (n+_v + k m) / (n+_v + n-_v + k),  m = the share of positives among all events
    logit(u, i) = logit r_u + logit r_i - logit m

The rule of ``rates`` on the counts that rankers see, which change with every event: what rankers on a stream must beat.
n+ and n- are the volumes of an impression's ``Features``; with positive edges alone there are no n-, and the rule is
how much is liked at all.

Deviations: none. Shape letters: B impressions, C types of events.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from macrorec.api import Ranker
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Graph
from macrorec.graph.columns import Features


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveRatesConfig:
    """How far counts are trusted."""

    user_prior: float = 10.0
    """k of users, in events."""
    item_prior: float = 10.0
    """k of items, in events."""

    def __post_init__(self) -> None:
        for name in ("user_prior", "item_prior"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be finite and above 0, not {getattr(self, name)!r}")


class LiveRates(Ranker):
    """The odds of the item times the odds of the user, of this moment."""

    Config = LiveRatesConfig
    config: LiveRatesConfig
    batches = None
    exceptions: ClassVar[dict[str, str]] = {
        "checkerboard_is_learned": "all users rank the items alike",
        "fold_in_of_a_colour_prefers_that_colour": "all users rank the items alike",
    }
    mean: Tensor

    def __init__(self, config: LiveRatesConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.register_buffer("mean", torch.tensor(0.5))

    @classmethod
    def memory(cls, config: Any, graph: Graph) -> int:
        return 4

    def solve(self, graph: Graph, generator: torch.Generator) -> None:
        user_I = torch.full((graph.n_items,), -1).numpy()
        volume_C = self.macro.features(user_I, torch.arange(graph.n_items).numpy()).item_volume_BC.double().sum(0)
        if len(volume_C) > 1:
            self.mean.fill_(float((volume_C[0] + 1) / (volume_C.sum() + 2)))  # never 0 or 1

    def logits(self, features: Features) -> Tensor:
        user_B = self.log_odds(features.user_volume_BC, self.config.user_prior)
        return user_B + self.log_odds(features.item_volume_BC, self.config.item_prior) - torch.logit(self.mean)

    def log_odds(self, volume_BC: Tensor, prior: float) -> Tensor:
        """logit r_v, (B,)."""
        return torch.logit((volume_BC[:, 0] + prior * self.mean) / (volume_BC.sum(1) + prior), eps=1e-6)


MODEL = LiveRates
