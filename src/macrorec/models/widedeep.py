"""Wide & Deep: a linear model that memorises crossed features, and an MLP on embeddings that generalises.

Cheng, Koc, Harmsen, Shaked, Chandra, Aradhye, Anderson, Corrado, Chai, Ispir, Anil, Haque, Hong, Jain, Liu & Shah,
Wide & deep learning for recommender systems (DLRS 2016).

| equation                                                         | here                                   |
|------------------------------------------------------------------|----------------------------------------|
| (1): phi_k(x) = prod_j x_j^c_kj, cross products                  | ``crosses``                            |
| (2): a^(l+1) = f(W^(l) a^(l) + b^(l)), f = ReLU                  | ``ops.mlp.MLP``                        |
| (3): P(y = 1) = sigmoid(w_wide'[x, phi(x)] + w_deep'a^(l_f) + b) | ``logits``: ``wide`` + ``deep``        |

Crossed are user group and item group; user group and item; and, as in the paper, each of the user's recent items with
the item. Pairs of more than ``buckets`` values share weights by a hash. Deviations: the paper learns the wide part by
FTRL with L1 and the deep part by AdaGrad; here one optimiser learns both.

Shape letters: B impressions, R recents, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from macrorec.api import ImpressionBatch, Ranker
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Graph
from macrorec.graph.columns import Features
from macrorec.ops.fields import Field, FieldTables, Seen, n_features, names, pool, read, shares, sizes
from macrorec.ops.losses import bce
from macrorec.ops.mlp import MLP, n_weights

Cross = Literal["user_group*item_group", "user_group*item", "user_recent*item"]
_OF = {
    "user_group*item_group": ("user_group", "item_group"),
    "user_group*item": ("user_group", "item"),
    "user_recent*item": ("item", "item"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class WideDeepConfig:
    """Sizes are MacGNN's, so that capacity is alike; the paper's are 32 numbers per embedding and 1024-512-256."""

    fields: Seen = "history"
    """``ids``: user, item, their groups; ``history``: and their recents; ``macro``: and their macro rows; ``volumes``:
    and how many events they have."""
    dim: int = 10
    """Length of the embeddings; 32 in the paper."""
    hidden: tuple[int, ...] = (200, 80)
    """Widths of the hidden layers; (1024, 512, 256) in the paper."""
    crosses: tuple[Cross, ...] = ("user_group*item_group", "user_group*item", "user_recent*item")
    """Pairs of fields whose cross products the wide part sees; recents take part where ``fields`` has them."""
    buckets: int = 1 << 18
    """The most weights that a pair of fields has; beyond that its values are hashed."""
    shared: bool = False
    """Whether an item has one embedding, as candidate and as a recent item, and so users and groups; ours."""
    dropout: float = 0.0
    """Share of hidden units that training leaves out; the paper mentions none."""
    std: float = 0.01
    """Standard deviation of the initial embeddings."""

    def __post_init__(self) -> None:
        if self.dim < 1 or self.buckets < 1 or any(width < 1 for width in self.hidden):
            raise ConfigError(
                f"dim, buckets and hidden must be at least 1, not {self.dim}, {self.buckets} and {list(self.hidden)}"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be at least 0 and below 1, not {self.dropout!r}")
        if len(set(self.crosses)) < len(self.crosses):
            raise ConfigError(f"crosses names a pair twice: {', '.join(self.crosses)}")


class WideDeep(Ranker):
    """The sum of both parts, learned together."""

    Config = WideDeepConfig
    config: WideDeepConfig

    def __init__(self, config: WideDeepConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.size = sizes(graph.n_users, graph.n_items, self.macro)
        self.weights = FieldTables(config.fields, self.size, 1)
        self.cross_weights = nn.ParameterDict(
            {cross: nn.Parameter(torch.zeros(self.n_weights(cross), 1)) for cross in self.seen_crosses(config)}
        )
        self.embeddings = FieldTables(config.fields, self.size, config.dim, shared=config.shared)
        self.mlp = MLP(len(names(config.fields)) * config.dim, config.hidden, "relu", config.dropout)

    @staticmethod
    def seen_crosses(config: WideDeepConfig) -> list[Cross]:
        """The crosses of the fields that the model sees."""
        return [cross for cross in config.crosses if cross.partition("*")[0] in names(config.fields)]

    def n_weights(self, cross: Cross) -> int:
        """Weights of a cross: one per pair of values, or ``buckets``."""
        left, right = _OF[cross]
        return min(self.size[left] * self.size[right], self.config.buckets)

    def initialise(self, generator: torch.Generator) -> None:
        """Embeddings: N(0, std^2). MLP: Xavier. The wide part: 0."""
        self.embeddings.initialise(generator, self.config.std)
        self.mlp.initialise(generator)

    @classmethod
    def memory(cls, config: WideDeepConfig, graph: Graph) -> int:
        """A vector and a weight per feature, crosses, and the MLP, with gradient and Adam's two moments."""
        wide = len(cls.seen_crosses(config)) * config.buckets
        mlp = n_weights(len(names(config.fields)) * config.dim, config.hidden)
        return 4 * 4 * (n_features(config.fields, graph) * (config.dim + 1) + wide + mlp)

    def logits(self, features: Features, generator: torch.Generator | None = None) -> Tensor:
        """(3), shape (B,); the bias is the MLP's."""
        fields = read(features, self.config.fields, self.size)
        return self.wide(fields) + self.deep(fields, generator)

    def losses(self, batch: ImpressionBatch) -> dict[str, Tensor]:
        return {"bce": bce(self.logits(batch.features, batch.generator), batch.labels_B)}

    def wide(self, fields: dict[str, Field]) -> Tensor:
        """w_wide'[x, phi(x)], shape (B,)."""
        crossed = [pool(self.cross_weights[cross], field) for cross, field in self.crosses(fields).items()]
        return torch.cat([*self.weights.sums(fields), *crossed], 1).sum(1)

    def deep(self, fields: dict[str, Field], generator: torch.Generator | None = None) -> Tensor:
        """w_deep'a^(l_f) + b, shape (B,)."""
        logit_B: Tensor = self.mlp(torch.cat(self.embeddings.sums(fields), 1), generator)
        return logit_B

    def crosses(self, fields: dict[str, Field]) -> dict[Cross, Field]:
        """(1): a field of products for each cross; of a bag with one feature it is a bag."""
        products = {}
        for cross in self.seen_crosses(self.config):
            left, _, right = cross.partition("*")
            a, b = fields[left].number, fields[right].number
            assert a is not None
            assert b is not None
            number = self.pairs(cross, a, b if a.ndim == 1 else b[:, None])
            products[cross] = Field(number, None if a.ndim == 1 else shares(number, self.n_weights(cross)))
        return products

    def pairs(self, cross: Cross, left: Tensor, right: Tensor) -> Tensor:
        """Numbers of pairs of values, or their bucket where there are more; -1 where either is outside its table."""
        n_left, n_right = (self.size[of] for of in _OF[cross])
        number = left * n_right + right
        if n_left * n_right > self.config.buckets:
            number = (number * -7046029254386353131 >> 20).remainder(self.config.buckets)  # odd: 2^64 / golden ratio
        inside = (left >= 0) & (left < n_left) & (right >= 0) & (right < n_right)
        return number.masked_fill(~inside, -1)


MODEL = WideDeep
