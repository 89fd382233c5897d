"""DIN: a user's recent items count as far as they bear upon the item at hand, by a small network that says so.

Zhou, Zhu, Song, Fan, Zhu, Ma, Yan, Jin, Li & Gai, Deep interest network for click-through rate prediction (KDD 2018).

| equation                                                  | here                                             |
|-----------------------------------------------------------|--------------------------------------------------|
| (1): e = pooling(e_1, ..., e_k), of other fields          | ``FieldTables.sums``                             |
| (3): v_U(A) = sum_r a(e_r, v_A) e_r                       | ``interest``                                     |
| figure 2: a = linear(dice(W [e_r, out product, v_A]))     | ``ActivationUnit``                               |
| Dice                                                      | ``ops.dice``                                     |
| figure 2: MLP 200-80 of the concatenated fields           | ``logits``                                       |

e_r and v_A are the embeddings of an item and of its group, concatenated. As in the paper no softmax is taken over the
a: their sum says how strong an interest is. The first layer of a is W_e e_r + W_v v_A + <v_A, W_o e_r>, computed as
(W_e + v_A'W_o) e_r + W_v v_A: one small matrix per impression, and nothing of the size of all outer products.

Deviations: Dice takes running statistics in evaluation, and in training the statistics of recents that are there, not
of padding. The last layer has one output rather than two. No mini-batch aware regularisation: L2 is the optimiser's,
``train.weight_decay``. Bags are averaged. The difference e_r - v_A, which the authors' code adds to a's inputs, is
linear in them already. A recent item's group is that of the macro graph as it is now.

Shape letters: B impressions, R recents, D embedding, V = 2 D an item with its group, H hidden, N = B R, E of them.
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
from macrorec.ops.attend import inside, masked_softmax, rows_or_zero
from macrorec.ops.dice import Dice
from macrorec.ops.fields import FieldTables, Seen, n_features, names, read, sizes
from macrorec.ops.losses import bce
from macrorec.ops.mlp import MLP, n_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class DINConfig:
    """Values of the paper, but for ``dim``, which is MacGNN's."""

    fields: Seen = "history"
    """``ids``: user, item, their groups, and nothing to attend to; ``history``: and their recents; ``macro``: and their
    macro rows; ``volumes``: and how many events they have."""
    dim: int = 10
    """Length of the embeddings."""
    hidden: tuple[int, ...] = (200, 80)
    """Widths of the hidden layers."""
    unit: int = 36
    """Width of the activation unit's hidden layer."""
    product: Literal["outer", "elementwise"] = "outer"
    """What the activation unit sees besides e_r and v_A: ``outer`` (figure 2) or ``elementwise`` (authors' code)."""
    softmax: bool = False
    """Whether the a of a user are made to sum to 1, by a softmax; the paper argues against it, its code has it."""
    dropout: float = 0.0
    """Share of hidden units that training leaves out."""
    std: float = 0.01
    """Standard deviation of the initial embeddings."""

    def __post_init__(self) -> None:
        if self.dim < 1 or self.unit < 1 or any(width < 1 for width in self.hidden):
            raise ConfigError(
                f"dim, unit and hidden must be at least 1, not {self.dim}, {self.unit} and {list(self.hidden)}"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be at least 0 and below 1, not {self.dropout!r}")


class ActivationUnit(nn.Module):
    """a(e_r, v_A) of figure 2: how much a recent item bears upon the item at hand."""

    def __init__(self, width: int, config: DINConfig) -> None:
        """``width`` is V."""
        super().__init__()
        hidden, outer = config.unit, config.product == "outer"
        self.recent_VH = nn.Parameter(torch.zeros(width, hidden))
        self.item_VH = nn.Parameter(torch.zeros(width, hidden))
        self.product = nn.Parameter(torch.zeros(width, *[width] * outer, hidden))
        self.bias_H = nn.Parameter(torch.zeros(hidden))
        self.dice = Dice(hidden)
        self.last_H = nn.Parameter(torch.zeros(hidden))
        self.last_bias = None if config.softmax else nn.Parameter(torch.zeros(()))  # a softmax would not see it

    def initialise(self, generator: torch.Generator) -> None:
        """Xavier's uniform distribution of the layer that all inputs make up, and of the last; biases and alpha: 0."""
        width, hidden = self.recent_VH.shape
        n_in = 2 * width + self.product.numel() // hidden
        for parameter, fan in (
            (self.recent_VH, n_in + hidden),
            (self.item_VH, n_in + hidden),
            (self.product, n_in + hidden),
            (self.last_H, hidden + 1),
        ):
            nn.init.uniform_(parameter, -((6 / fan) ** 0.5), (6 / fan) ** 0.5, generator=generator)

    def forward(self, recent_BRV: Tensor, item_BV: Tensor, there_BR: Tensor) -> Tensor:
        """a for each recent item, shape (B, R); what it is where none is there, the caller must not use."""
        n, hidden = recent_BRV.shape[:2], len(self.bias_H)
        if self.product.ndim == 3:
            by_BVH = (item_BV @ self.product.flatten(1)).view(*item_BV.shape, hidden)
        else:
            by_BVH = item_BV[:, :, None] * self.product
        of_item_BH = item_BV @ self.item_VH + self.bias_H
        x_NH = torch.baddbmm(of_item_BH[:, None], recent_BRV, by_BVH + self.recent_VH).flatten(0, 1)
        if not self.training:
            return self.last(x_NH).view(n)
        place_E = there_BR.flatten().nonzero().squeeze(1)
        if len(place_E) == len(x_NH):
            return self.last(x_NH).view(n)
        a_E = self.last(rows_or_zero(x_NH, place_E))
        return a_E.new_zeros(len(x_NH)).index_put((place_E,), a_E).view(n)

    def last(self, x_NH: Tensor) -> Tensor:
        """Dice and the last layer, shape (N,)."""
        a_N: Tensor = self.dice(x_NH) @ self.last_H
        return a_N if self.last_bias is None else a_N + self.last_bias


class DIN(Ranker):
    """Embeddings of fields, of which the user's recent items are weighed by the item at hand, and an MLP."""

    Config = DINConfig
    config: DINConfig

    unit: ActivationUnit

    def __init__(self, config: DINConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.size = sizes(graph.n_users, graph.n_items, self.macro)
        self.embeddings = FieldTables(config.fields, self.size, config.dim, shared=True)
        self.attends = "user_recent" in names(config.fields)
        if self.attends:
            self.unit = ActivationUnit(2 * config.dim, config)
        n_in = (len(names(config.fields)) + self.attends) * config.dim
        self.mlp = MLP(n_in, config.hidden, "dice", config.dropout)

    def initialise(self, generator: torch.Generator) -> None:
        """Embeddings: N(0, std^2). Matrices: Xavier. Biases and Dice's alpha: 0."""
        self.embeddings.initialise(generator, self.config.std)
        self.mlp.initialise(generator)
        if self.attends:
            self.unit.initialise(generator)

    @classmethod
    def memory(cls, config: DINConfig, graph: Graph) -> int:
        """Embeddings, MLP and unit, with gradient and Adam's two moments; what the unit makes of 1,024 impressions."""
        unit = config.unit * (4 * config.dim**2 + 4 * config.dim + 5)
        mlp = n_weights((len(names(config.fields)) + 1) * config.dim, config.hidden)
        weights = n_features(config.fields, graph) * config.dim + mlp + unit
        return 4 * 4 * weights + 4 * 1024 * (20 * (4 * config.dim + 4 * config.unit) + 4 * config.dim * config.unit)

    def logits(self, features: Features, generator: torch.Generator | None = None) -> Tensor:
        """Logits of B impressions, shape (B,); ``generator`` draws what dropout leaves out."""
        fields = read(features, self.config.fields, self.size)
        fields.pop("user_recent", None)
        vectors = self.embeddings.sums(fields)
        if self.attends:
            vectors.append(self.interest(features))
        logit_B: Tensor = self.mlp(torch.cat(vectors, 1), generator)
        return logit_B

    def losses(self, batch: ImpressionBatch) -> dict[str, Tensor]:
        return {"bce": bce(self.logits(batch.features, batch.generator), batch.labels_B)}

    def interest(self, features: Features) -> Tensor:
        """v_U(A) of (3), shape (B, V); zero for a user without recent items."""
        number_BR = features.user_recent_BR
        there_BR = inside(number_BR, self.n_items)
        of_I = torch.from_numpy(self.macro.items.of_N).to(number_BR.device)
        group_BR = of_I[number_BR * there_BR].long().masked_fill(~there_BR, -1)
        recent_BRV = self.item_vectors(number_BR, group_BR)
        a_BR: Tensor = self.unit(recent_BRV, self.item_vectors(features.item_B, features.item_group_B), there_BR)
        weight_BR = masked_softmax(a_BR, there_BR) if self.config.softmax else a_BR
        return torch.bmm(weight_BR[:, None], recent_BRV).squeeze(1)  # of what is not there the vector is zero

    def item_vectors(self, item: Tensor, group: Tensor) -> Tensor:
        """[embedding of the item, embedding of its group], one more dimension than ``item``, of length V."""
        tables = (self.embeddings.table("item"), self.embeddings.table("item_group"))
        rows = [rows_or_zero(table, n.flatten()) for table, n in zip(tables, (item, group), strict=True)]
        return torch.cat(rows, 1).view(*item.shape, 2 * self.config.dim)


MODEL = DIN
