"""LR: logistic regression on the fields of an impression; each feature has one weight.

Richardson, Dominowska & Ragno, Predicting clicks: estimating the click-through rate for new ads (WWW 2007).

| equation                                  | here                                  |
|-------------------------------------------|---------------------------------------|
| (1): CTR = 1 / (1 + exp(-Z)), Z = sum w_j f_j(ad) | ``logits`` is Z, with a bias  |
| cross-entropy                             | ``losses``, of every ranker           |

Deviations: Adam instead of L-BFGS; L2 is the optimiser's, ``train.weight_decay``. Features are those of ``ops.fields``
rather than of advertisements, and are not standardised: they lie in [0, 1].

Shape letters: B impressions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from macrorec.api import Ranker
from macrorec.graph.bipartite import Graph
from macrorec.graph.columns import Features
from macrorec.ops.fields import FieldTables, Seen, n_features, read, sizes


@dataclass(frozen=True, kw_only=True, slots=True)
class LRConfig:
    """What it sees; there is nothing else to choose."""

    fields: Seen = "history"
    """``ids``: user, item, their groups; ``history``: and their recents; ``macro``: and their macro rows; ``volumes``:
    and how many events they have."""


class LR(Ranker):
    """A bias, and a weight per feature."""

    Config = LRConfig
    config: LRConfig
    exceptions: ClassVar[dict[str, str]] = {
        "checkerboard_is_learned": "a sum of the user's and the item's weights ranks items alike for every user",
        "fold_in_of_a_colour_prefers_that_colour": "a sum of the user's and the item's weights, as above",
    }

    def __init__(self, config: LRConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.size = sizes(graph.n_users, graph.n_items, self.macro)
        self.weights = FieldTables(config.fields, self.size, 1)
        self.bias = nn.Parameter(torch.zeros(()))

    @classmethod
    def memory(cls, config: LRConfig, graph: Graph) -> int:
        """A weight per feature, with gradient and Adam's two moments."""
        return 4 * 4 * (n_features(config.fields, graph) + 1)

    def logits(self, features: Features) -> Tensor:
        """Z of (1), shape (B,)."""
        fields = read(features, self.config.fields, self.size)
        return torch.cat(self.weights.sums(fields), 1).sum(1) + self.bias


MODEL = LR
