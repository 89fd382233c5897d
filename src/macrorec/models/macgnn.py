"""MacGNN: ranks an impression by its neighbourhood of groups, at a cost that does not grow with history.

Chen, Bei, Shen, Wang, Zhao, Chen, Wang, Huang, Chen, Tang & Wang, Macro graph neural networks for online billion-scale
recommender systems (WWW 2024).

| equation                                             | here                                                         |
|------------------------------------------------------|--------------------------------------------------------------|
| (5): A_u1, A_u2, A_i1, A_i2                          | ``Features``, from ``MacroGraph``                            |
| (6): w = softmax(log(A + 1) / tau)                   | ``macro_weights``                                            |
| (7): a = softmax <Q E~_p, K E_t> / sqrt(d')          | ``MNA.query``, ``MNA.attention``                             |
| (6), (7): z = sum_p w_p a_p V E~_p                   | ``gathered``, then V; ``MNA`` once per type of neighbour     |
| readout: MLP of [E_u, z_u1, z_u2, z_ur, E_i, ...]    | ``concat``, ``readout``                                      |

The target t is the user for neighbours that are users, the item for those that are items: a user's first hop and recent
items face the item, its second hop the user itself; of an item the other way round. Being linear, (7) is computed
as <E~_p, Q'K E_t> and V (sum_p w_p a_p E~_p): nothing of shape (B, K, d') is formed.

Deviations: attention is over neighbours, as in the text; in the released code it is over an axis of length one, hence 1
(``attention="released"``). Dice takes running statistics in evaluation. Options marked "ours" are not of the paper.

Shape letters: B impressions, U users, I items, P groups of users, Q groups of items, K either, R recents, D = d
embedding, A = d' = 2 d, Z numbers of the readout (14 d), H hidden.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from macrorec.api import ImpressionBatch, Ranker, Reason, Reasons
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Graph
from macrorec.graph.columns import Features
from macrorec.graph.typed import TypedMacroGraph
from macrorec.ops.attend import attend, attention, inside, masked_softmax, rows_or_zero
from macrorec.ops.attribution import integrated_gradient
from macrorec.ops.losses import bce
from macrorec.ops.macgnn_fused import Fused, fits
from macrorec.ops.mlp import MLP, n_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class MacGNNConfig:
    """Values of the paper for MovieLens 10M; L2 is the optimiser's, ``train.weight_decay`` (5e-5 there)."""

    dim: int = 10
    """d, length of the embeddings; d' is twice that."""
    hidden: tuple[int, ...] = (200, 80)
    """Widths of the readout's hidden layers."""
    tau: float = 1.9
    """Temperature of (6), above 0."""
    attention: Literal["macro", "released"] = "macro"
    """``macro``: (7), over the neighbours; ``released``: every weight 1, as the authors' code comes out."""
    macro_weights: bool = True
    """Whether (6) weighs macro neighbours; otherwise every weight is 1."""
    temperature: bool = True
    """Whether (6) has a temperature; otherwise tau is 1."""
    recents: bool = True
    """Whether the latest items of the user and the latest users of the item take part."""
    hop2: bool = True
    """Whether second hops take part."""
    item_side: bool = True
    """Whether neighbours of the item take part; its embedding does in any case."""
    mask_empty: bool = False
    """Whether groups of count 0 are left out of (6) and (7); in the authors' code they take part."""
    dropout: float = 0.0
    """Share of hidden units that training leaves out."""
    normalise: bool = False
    """Ours: the products w_p a_p are divided by their sum, so that z is a mean of the values."""
    own_group: bool = False
    """Ours: to a node's embedding that of its group is added, which then stands for a node never trained."""
    bias: bool = False
    """Ours: the logit has a term of the user and one of the item."""
    volumes: bool = False
    """Ours: the readout sees log(n + 1) of the events of user and item, by type, which the softmax of (6) hides."""

    def __post_init__(self) -> None:
        if not 0 < self.tau < math.inf:
            raise ConfigError(f"tau must be finite and above 0, not {self.tau!r}; temperature=false sets it to 1")
        if self.dim < 1 or any(width < 1 for width in self.hidden):
            raise ConfigError(f"dim and hidden must be at least 1, not {self.dim} and {list(self.hidden)}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be at least 0 and below 1, not {self.dropout!r}")


class MNA(nn.Module):
    """The parameters of (7) for one type of neighbours; without Q and K where attention is 1."""

    def __init__(self, dim: int, *, attends: bool) -> None:
        super().__init__()
        self.value_DA = nn.Parameter(torch.zeros(dim, 2 * dim))
        self.query_DA = nn.Parameter(torch.zeros(dim, 2 * dim)) if attends else None
        self.key_DA = nn.Parameter(torch.zeros(dim, 2 * dim)) if attends else None

    def query(self, target_BD: Tensor) -> Tensor | None:
        """Q'K E_t / sqrt(d'), (B, D): its inner product with a neighbour's embedding is the logit of (7)."""
        if self.query_DA is None or self.key_DA is None:
            return None
        query_BD: Tensor = target_BD @ (self.key_DA @ self.query_DA.T) * self.value_DA.shape[1] ** -0.5
        return query_BD


@dataclass(frozen=True, slots=True, eq=False)
class Hop:
    """The neighbours of one side of B impressions at one distance, and what they are aggregated by."""

    side: Literal["user", "item"]
    via: Literal["hop 1", "hop 2", "recent"]
    kind: Literal["user group", "item group", "user", "item"]
    mna: MNA
    table_KD: Tensor
    """Embeddings: of the groups, or of all nodes that a recent one may be."""
    query_BD: Tensor | None
    attention_BK: Tensor | None
    """(7) over all groups, which two hops share; None where it is over fewer."""
    given_BK: Tensor
    """Counts of the groups, or numbers of the recents."""


class MacGNN(Ranker):
    """Macro weights, attention over macro neighbours and recents, and an MLP on what they gather."""

    Config = MacGNNConfig
    config: MacGNNConfig

    users_UD: nn.Parameter
    items_ID: nn.Parameter
    user_groups_PD: nn.Parameter
    item_groups_QD: nn.Parameter
    user_bias_U1: nn.Parameter
    item_bias_I1: nn.Parameter
    of_users: MNA
    of_items: MNA

    def __init__(self, config: MacGNNConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        dim, attends = config.dim, config.attention == "macro"
        tables = {"users_UD": (graph.n_users, dim), "items_ID": (graph.n_items, dim)}
        n_user_groups, n_item_groups = self.macro.n_columns
        tables["item_groups_QD"] = (n_item_groups, dim)
        if self.meets_users or config.own_group:
            tables["user_groups_PD"] = (n_user_groups, dim)
        if config.bias:
            tables |= {"user_bias_U1": (graph.n_users, 1), "item_bias_I1": (graph.n_items, 1)}
        for name, shape in tables.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        self.of_items = MNA(dim, attends=attends)
        if self.meets_users:
            self.of_users = MNA(dim, attends=attends)
        n_hops = (1 + config.hop2 + config.recents) * (1 + config.item_side)
        n_volumes = 2 * config.volumes * (len(self.macro.types) if isinstance(self.macro, TypedMacroGraph) else 1)
        self.readout = MLP(2 * dim * (1 + n_hops) + n_volumes, config.hidden, "dice", config.dropout)

    @property
    def meets_users(self) -> bool:
        """Whether any neighbours are users."""
        return self.config.hop2 or self.config.item_side

    def initialise(self, generator: torch.Generator) -> None:
        """Matrices: Xavier, uniform (authors' code). Biases and Dice's alpha: 0."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2 and "bias" not in name and len(parameter):
                nn.init.xavier_uniform_(parameter, generator=generator)
            else:
                nn.init.zeros_(parameter)

    @classmethod
    def memory(cls, config: MacGNNConfig, graph: Graph) -> int:
        """Tables of nodes and groups, gradients and Adam's two moments; the readout likewise."""
        readout = n_weights(14 * config.dim, config.hidden)
        n_groups = sum(graph.macro.n_columns) if graph.macro else 200
        return 4 * 4 * ((graph.n_nodes + n_groups) * (config.dim + 1) + 12 * config.dim**2 + readout)

    def logits(self, features: Features, generator: torch.Generator | None = None) -> Tensor:
        """Logits of B impressions, shape (B,); ``generator`` draws what dropout leaves out."""
        logit_B: Tensor = self.readout(self.concat(features), generator)
        return sum(self.biases(features), logit_B)

    def fused(self) -> Fused | None:
        """``logits`` as one compiled loop, where all is float32 on the CPU."""
        assert not self.training, "a loop for training is another one"
        return Fused(self) if fits(self) else None

    def losses(self, batch: ImpressionBatch) -> dict[str, Tensor]:
        return {"bce": bce(self.logits(batch.features, batch.generator), batch.labels_B)}

    def nodes(self, features: Features) -> tuple[Tensor, Tensor]:
        """E_u and E_i, (B, D) each; zero for a node without a row."""
        user_BD = rows_or_zero(self.users_UD, features.user_B)
        item_BD = rows_or_zero(self.items_ID, features.item_B)
        if self.config.own_group:
            user_BD = user_BD + rows_or_zero(self.user_groups_PD, features.user_group_B)
            item_BD = item_BD + rows_or_zero(self.item_groups_QD, features.item_group_B)
        return user_BD, item_BD

    def biases(self, features: Features) -> list[Tensor]:
        """b_u and b_i, (B,) each, if the logit has them; zero for a node without a row."""
        if not self.config.bias:
            return []
        given = ((self.user_bias_U1, features.user_B), (self.item_bias_I1, features.item_B))
        return [rows_or_zero(table, number_B).squeeze(1) for table, number_B in given]

    def hops(self, features: Features, user_BD: Tensor, item_BD: Tensor) -> Iterator[Hop]:
        """Neighbours that are items, or groups of items; then those that are users."""
        f, config = features, self.config
        query_BD = self.of_items.query(item_BD)
        groups = self._facing(self.of_items, self.item_groups_QD, query_BD)
        yield Hop("user", "hop 1", "item group", *groups, f.user_hop1_BQ)
        if config.hop2 and config.item_side:
            yield Hop("item", "hop 2", "item group", *groups, f.item_hop2_BQ)
        if config.recents:
            yield Hop("user", "recent", "item", self.of_items, self.items_ID, query_BD, None, f.user_recent_BR)
        if not self.meets_users:
            return
        query_BD = self.of_users.query(user_BD)
        groups = self._facing(self.of_users, self.user_groups_PD, query_BD)
        if config.hop2:
            yield Hop("user", "hop 2", "user group", *groups, f.user_hop2_BP)
        if config.item_side:
            yield Hop("item", "hop 1", "user group", *groups, f.item_hop1_BP)
        if config.item_side and config.recents:
            yield Hop("item", "recent", "user", self.of_users, self.users_UD, query_BD, None, f.item_recent_BR)

    def macro_weights(self, count_BK: Tensor) -> Tensor:
        """(6): softmax over groups of log(count + 1) / tau, (B, K)."""
        if not self.config.macro_weights:
            return self._kept(count_BK).to(count_BK.dtype)
        tau = self.config.tau if self.config.temperature else 1.0
        return self._softmax(count_BK.clamp(min=0).log1p() / tau, count_BK)

    def macro_attention(self, hop: Hop) -> Tensor:
        """(7): softmax over groups of <Q E~_p, K E_t> / sqrt(d'), (B, K); ones in the released reading."""
        if hop.attention_BK is not None:
            return hop.attention_BK
        if hop.query_BD is None:
            return self._kept(hop.given_BK).to(hop.table_KD.dtype)
        return self._softmax(hop.query_BD @ hop.table_KD.T, hop.given_BK)

    def combined(self, hop: Hop) -> Tensor:
        """w_p a_p of a hop over groups, (B, K)."""
        both_BK = self.macro_weights(hop.given_BK) * self.macro_attention(hop)
        if self.config.normalise:
            both_BK = both_BK / both_BK.sum(1, keepdim=True).clamp(min=torch.finfo(both_BK.dtype).tiny)
        return both_BK

    def gathered(self, hop: Hop) -> Tensor:
        """sum_p w_p a_p E~_p, (B, D); recents have no w_p."""
        if hop.via == "recent":
            return attend(hop.table_KD, hop.given_BK, hop.query_BD)
        return self.combined(hop) @ hop.table_KD

    def concat(self, features: Features) -> Tensor:
        """[E_u, E_i, z of each hop, volumes], (B, Z), hops as ``hops`` has them; z = V sum_p w_p a_p E~_p."""
        nodes = self.nodes(features)
        gathered = [(hop.mna, self.gathered(hop)) for hop in self.hops(features, *nodes)]
        mnas = (self.of_items, self.of_users) if self.meets_users else (self.of_items,)
        z = [torch.stack([x_BD for own, x_BD in gathered if own is mna], 1) @ mna.value_DA for mna in mnas]
        return torch.cat([*nodes, *(z_BXA.flatten(1) for z_BXA in z), *self.volumes(features)], 1)

    def volumes(self, features: Features) -> list[Tensor]:
        """log(n + 1) of the events of the user and of the item, (B, C) each, if the readout sees them."""
        if not self.config.volumes:
            return []
        return [n_BC.clamp(min=0).log1p() for n_BC in (features.user_volume_BC, features.item_volume_BC)]

    @torch.no_grad()
    def reasons(self, features: Features) -> Reasons:
        """Shares of the logit: integrated gradients of the readout, along the straight line from 0 to ``concat``.

        Of a hop the readout sees the sum of its neighbours' vectors; a neighbour's share is the inner product of its
        own vector with the mean gradient on the way. In evaluation mode, where the readout is smooth, shares add up.
        """
        assert len(features) == 1, "reasons are of one impression"
        assert not self.training, "reasons are of evaluation mode"
        nodes = self.nodes(features)
        hops = list(self.hops(features, *nodes))
        state = {name: value.double() for name, value in self.readout.state_dict().items()}
        gradient_Z, base = integrated_gradient(
            lambda x_TZ: functional_call(self.readout, state, (x_TZ,)), self.concat(features)[0].double()
        )
        dim, volumes = self.config.dim, self.volumes(features)
        sizes = [dim, dim, *[2 * dim] * len(hops), *(n_BC.shape[1] for n_BC in volumes)]
        of_user, of_item, *rest = gradient_Z.to(nodes[0].dtype).split(sizes)  # type: ignore[no-untyped-call]
        of_hops, of_volumes = rest[: len(hops)], rest[len(hops) :]
        neighbours = [r for hop, of_hop in zip(hops, of_hops, strict=True) for r in self._neighbours(hop, of_hop)]
        own = [float(node_BD[0] @ of_node) for node_BD, of_node in zip(nodes, (of_user, of_item), strict=True)]
        for side, (n_BC, of_n) in enumerate(zip(volumes, of_volumes, strict=True)):
            own[side] += float(n_BC[0] @ of_n)
        for side, bias_B in enumerate(self.biases(features)):
            own[side] += float(bias_B)
        return Reasons(
            logit=float(self.logits(features)), base=base, user=own[0], item=own[1], neighbours=tuple(neighbours)
        )

    def _neighbours(self, hop: Hop, gradient_A: Tensor) -> list[Reason]:
        """The neighbours of one hop of one impression, given the mean gradient of its z."""
        if hop.via == "recent":
            kept_K = inside(hop.given_BK[0], len(hop.table_KD)).nonzero().squeeze(1)
            number_K = hop.given_BK[0, kept_K]
            attention_K = attention(hop.table_KD, hop.given_BK, hop.query_BD)[0, kept_K]
            count_K = weight_K = torch.ones_like(attention_K)
            factor_K = attention_K
        else:
            kept_K = number_K = self._kept(hop.given_BK[0]).nonzero().squeeze(1)
            attention_K, count_K = self.macro_attention(hop)[0, kept_K], hop.given_BK[0, kept_K]
            weight_K, factor_K = self.macro_weights(hop.given_BK)[0, kept_K], self.combined(hop)[0, kept_K]
        value_KA = hop.table_KD[number_K] @ hop.mna.value_DA
        share_K = factor_K * (value_KA @ gradient_A)
        columns = (number_K, count_K, weight_K, attention_K, share_K)
        n = {"item group": self.macro.items.n, "user group": self.macro.users.n}.get(hop.kind, len(hop.table_KD))
        return [
            Reason(hop.side, hop.via, hop.kind, k % n, count, weight, attends, share, k // n)
            for k, count, weight, attends, share in zip(*(column.tolist() for column in columns), strict=True)
        ]

    def _facing(
        self, mna: MNA, table_KD: Tensor, query_BD: Tensor | None
    ) -> tuple[MNA, Tensor, Tensor | None, Tensor | None]:
        """What two hops over the same groups have in common."""
        if query_BD is None or self.config.mask_empty:
            return mna, table_KD, query_BD, None
        return mna, table_KD, query_BD, (query_BD @ table_KD.T).softmax(1)

    def _kept(self, count_BK: Tensor) -> Tensor:
        return count_BK > 0 if self.config.mask_empty else torch.ones_like(count_BK, dtype=torch.bool)

    def _softmax(self, logit_BK: Tensor, count_BK: Tensor) -> Tensor:
        if self.config.mask_empty:
            return masked_softmax(logit_BK, count_BK > 0)
        return logit_BK.softmax(1)


MODEL = MacGNN
