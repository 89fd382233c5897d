"""BPR-MF: the inner product of a user's and an item's vector, learned from pairs of a chosen and another item.

Rendle, Freudenthaler, Gantner & Schmidt-Thieme, BPR: Bayesian personalized ranking from implicit feedback (UAI 2009).

| equation               | here                                                              |
|------------------------|-------------------------------------------------------------------|
| sec. 4.3.1, x_ui       | ``score``: <w_u, h_i>, W = ``users_UD``, H = ``items_ID``         |
| sec. 4.1, BPR-Opt      | ``losses``: ``bpr`` is -ln sigmoid(x_ui - x_uj), ``l2`` its prior |
| sec. 4.2, LearnBPR     | ``batches``: triples (u, i, j), j a true negative                 |

Deviations: Adam on batches instead of single steps of SGD; every edge once per epoch instead of draws with replacement;
one regularisation constant for users, positives and negatives, on the rows of the batch; no item bias.

Shape letters: B batch, U users, I items, N negatives per positive, M = 1 + N, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from macrorec.api import PairBatch, Pairwise, TwoTower
from macrorec.graph.bipartite import Graph
from macrorec.ops.losses import bpr, l2_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class BPRConfig:
    """The paper gives no single value for its constants; those of LightGCN's comparison (He et al. 2020) stand here."""

    dim: int = 64
    """D, length of the vectors."""
    l2: float = 1e-4
    """Lambda of the l2 term: squared, halved, per example, rows of the batch only."""
    init_std: float = 0.1
    """Deviation of the normal distribution that vectors start from."""
    n_negatives: int = 1
    """Negatives per positive."""
    draw: Literal["edge", "user"] = "edge"
    """``edge``: every edge once per epoch; ``user``: user uniform, then one of its items."""
    true_negatives: bool = True
    """Whether a negative may be no train item of the user."""


class BPR(TwoTower):
    """score(u, i) = <w_u, h_i>, learned by BPR."""

    Config = BPRConfig
    config: BPRConfig

    def __init__(self, config: BPRConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.batches = Pairwise(n=config.n_negatives, by=config.draw, true_negatives=config.true_negatives)
        self.users_UD = nn.Parameter(torch.zeros(graph.n_users, config.dim))
        self.items_ID = nn.Parameter(torch.zeros(graph.n_items, config.dim))

    def initialise(self, generator: torch.Generator) -> None:
        """Both tables: normal, mean 0, deviation ``init_std``."""
        nn.init.normal_(self.users_UD, std=self.config.init_std, generator=generator)
        nn.init.normal_(self.items_ID, std=self.config.init_std, generator=generator)

    @classmethod
    def memory(cls, config: BPRConfig, graph: Graph) -> int:
        """Vectors, gradients and Adam's two moments, 4 bytes each."""
        return 4 * 4 * graph.n_nodes * config.dim

    def encode(self) -> tuple[Tensor, Tensor]:
        return self.users_UD, self.items_ID

    def losses(self, batch: PairBatch) -> dict[str, Tensor]:
        users_BD = embedding(batch.users_B, self.users_UD)
        items_BMD = embedding(torch.cat([batch.items_B[:, None], batch.negatives_BN], 1), self.items_ID)
        score_BM = (users_BD[:, None] * items_BMD).sum(-1)
        return {"bpr": bpr(score_BM[:, 0], score_BM[:, 1:]), "l2": self.config.l2 * l2_rows(users_BD, items_BMD)}


MODEL = BPR
