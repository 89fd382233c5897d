"""Evidence: what a user is about to buy, judged by what they have done with it. Ours; not published anywhere.

Four of five purchases are of items that the buyer has met before, by a view or a cart. Two vectors per pair cannot say
that this very user has met this very item; simple rules can, and beat them. Here every pair is described by what is
known of it (``macrorec.ops.evidence``: its own edges by each behaviour, how often such edges led to a purchase, the
user's habits, and what the user's other items say), and one small network learns what that is worth.

| equation                                                                      | here                             |
|-------------------------------------------------------------------------------|----------------------------------|
| (1) x_ui = evidence of the pair, without the purchase that is asked for        | ``Evidence.table``               |
| (2) s_ui = MLP((x_ui - m) / d), m and d over the pairs that train knows        | ``network_of``                   |
| (3) P(u buys p next) = exp(s_up) / sum over all i not bought of exp(s_ui)      | ``losses``: mean of -ln P        |
| (4) q_ui = (1 - c) (1/2I + b_i/2E) + c a_ui: how likely a draw of u is item i  | ``choices``                      |
| (5) w' <- w' + max(1/t, 1/T) (w - w') after step t: weights that score         | ``training_step``                |
| (6) a list: the L largest s_ui + x [u has not met i], in the order of s_ui     | ``score_all``                    |

For each purchase p in train, p is taken back, and (3) asks which of the items not bought it was. Its sum runs over the
user's own items exactly. All others are represented by N draws from (4), of which each that the user does not know
counts 1 / (N q_ui) times, so that the sum is exact on average. A share c of draws goes by a_ui, the sum of cosines of
the item with the user's purchases over that of all items; of the others half are uniform, and half go by b_i, an item's
buyers (E in all). A batch is of users with all their purchases: what their items say is then collected once.

(3) is a probability over all items, so own and new ones compete on one scale, and x = 0 finds most purchases. To value
the discovery of a new item 1 + l times as much as another hit is to fill a list by P (1 + l) where an item is new: one
x = ln(1 + l) for all pairs, whatever the user. Within the list every hit gains by standing high, so that P orders it.

Deviations: none, for there is no paper. Shape letters: B users of a batch, P their purchases, U users, I items,
C pairs, F columns of evidence, K similar items, E own items.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from macrorec.api import Batch, Model, RowBatch, Step, UserRows, take_rows
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Edges, Graph
from macrorec.ops.average import average, of_buffers
from macrorec.ops.choices import Choices, Near, choices, log_sum_exp, open_pairs, rows_of
from macrorec.ops.evidence import KINDS, PAIRS_AT_ONCE, Evidence, Rows
from macrorec.ops.mlp import MLP, n_weights
from macrorec.ops.places import placed

_PAIRS_IN_CACHE = 1 << 12  # whose hidden layers stay near the processor: 5 times as fast as all at once


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceConfig:
    """Chosen on validation: there is no paper."""

    hidden: tuple[int, ...] = (64, 32)
    """Widths of the hidden layers of (2)."""
    n_sampled: int = 64
    """N, items drawn per user to stand for those that the user has not met."""
    near: float = 0.5
    """c of (4), the share of draws that go by similarity; 0 leaves uniform ones and those by buyers."""
    n_averaged: int = 600
    """T, steps that the average (5) looks back on."""
    prior: float = 10.0
    """Users at the mean rate that count beside an item's own, in its rates."""
    shrinkage: float = 5.0
    """Added to the denominators of cosines between items."""
    n_neighbors: int = 300
    """Most similar items that count per item, by one auxiliary behaviour or by all of them."""
    dim: int = 128
    """Singular vectors of the auxiliary behaviours by which items are compared."""
    discovery: float = 0.0
    """x of (6). 0 is what was learned; more of it lets new items into the list at the cost of the user's own."""
    n_places: int = 10
    """L of (6), the length of list that ``discovery`` is meant for."""
    without: tuple[str, ...] = ()
    """Kinds of evidence to leave out: of ``macrorec.ops.evidence.KINDS``."""

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.without if kind not in KINDS]:
            raise ConfigError(f"evidence.without: {unknown[0]!r} is no kind of evidence; there are {', '.join(KINDS)}")
        if self.prior <= 0 or self.shrinkage <= 0 or not 0 <= self.near < 1:
            raise ConfigError("evidence needs prior and shrinkage above 0, and near of at least 0 and below 1")
        if min(self.n_neighbors, self.dim, self.n_sampled, self.n_averaged, self.n_places) < 1:
            raise ConfigError("evidence needs n_neighbors, dim, n_sampled, n_averaged and n_places of at least 1")


class EvidenceModel(Model):
    """A small network over what is known of a pair, learned as a choice among all items."""

    Config = EvidenceConfig
    config: EvidenceConfig
    batches = UserRows()
    start_U: Tensor
    item_E: Tensor
    share_I: Tensor
    near_IK: Tensor
    alike_IK: Tensor
    bought_start_U: Tensor
    bought_E: Tensor
    n_steps: Tensor
    centre_F: Tensor
    scale_F: Tensor

    def __init__(self, config: EvidenceConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        given = {"n_neighbors": config.n_neighbors, "dim": config.dim}
        self.evidence = Evidence(graph, prior=config.prior, shrinkage=config.shrinkage, **given)
        kinds = self.evidence.kinds
        self.network = MLP(len(kinds), config.hidden, "relu")
        self.averaged = of_buffers(MLP(len(kinds), config.hidden, "relu"))
        self.register_buffer("n_steps", torch.zeros((), dtype=torch.int64))
        mean_F, deviation_F = self.evidence.moments(graph)
        kept_F = torch.tensor([kind not in config.without for kind in kinds])
        near_IK, alike_IK = map(torch.from_numpy, self.evidence.alike)
        scale = {"centre_F": mean_F, "scale_F": kept_F / deviation_F}
        for name, value in {"near_IK": near_IK, "alike_IK": alike_IK, **scale}.items():
            self.register_buffer(name, value, persistent=False)
        self.refresh(graph)

    def initialise(self, generator: torch.Generator) -> None:
        """Matrices: Xavier, uniform; biases: 0. The average starts there, too."""
        self.network.initialise(generator)
        self.averaged.load_state_dict(self.network.state_dict())

    @classmethod
    def memory(cls, config: EvidenceConfig, graph: Graph) -> int:
        n_columns = 15 * len(graph.edges)
        pairs = 4 * PAIRS_AT_ONCE * (n_columns + 2 * sum(config.hidden))
        weights = 16 * n_weights(n_columns, config.hidden)
        edges = 24 * sum(map(len, graph.edges)) + 32 * graph.n_nodes
        return Evidence.n_bytes(graph, config.n_neighbors, config.dim) + pairs + weights + edges

    def refresh(self, graph: Graph) -> None:
        """New edges count at once as those of their users; what items led to stays as it was learned from."""
        self.rows = Rows.of(graph.edges)
        start_U, item_E = open_pairs(graph)
        buyers_I = torch.bincount(graph.target.item_E, minlength=graph.n_items)
        share_I = 0.5 / max(graph.n_items, 1) + 0.5 * buyers_I / max(len(graph.target), 1)
        bought = {"bought_start_U": graph.target.start_U, "bought_E": graph.target.item_E}
        for name, value in {"start_U": start_U, "item_E": item_E, "share_I": share_I, **bought}.items():
            self.register_buffer(name, value.to(self.scale_F.device), persistent=False)

    def network_of(self, x_CF: Tensor, network: MLP) -> Tensor:
        """(2): the score of each pair, (C,). Evidence left out has the scale 0."""
        first = network.layers[0].state_dict(keep_vars=True)
        weight_HF, bias_H = first["weight"] * self.scale_F, first["bias"]
        return network.after_first(linear(x_CF, weight_HF, bias_H - weight_HF @ self.centre_F))

    def losses(self, batch: RowBatch) -> dict[str, Tensor]:
        """(3), averaged over the purchases of the batch."""
        row_P = rows_of(batch.start_B)
        among = self.choices(batch, row_P)
        x_CF = self.evidence.table(self.rows, batch.users_B[row_P], batch.items_E, among.start_P, among.item_C)
        score_C = self.network_of(x_CF, self.network)
        total_P = log_sum_exp(score_C + among.weight_C, rows_of(among.start_P), len(row_P))
        return {"choice": (total_P - score_C[among.start_P[:-1]]).mean()}

    def choices(self, batch: RowBatch, row_P: Tensor) -> Choices:
        """The terms of the sum in (3), with draws from (4)."""
        near = Near(self.share_I, self.near_IK, self.alike_IK, self.config.near)
        drawn_S, times_S = near.draw(row_P, batch.items_E, len(batch.users_B), self.config.n_sampled, batch.generator)
        own_B = take_rows(self.start_U, self.item_E, batch.users_B)
        return choices(row_P, batch.items_E, own_B, drawn_S, times_S, self.n_items)

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """(5), after each step."""
        terms = super().training_step(batch, step)
        self.n_steps += 1
        average(self.averaged, self.network, int(self.n_steps), self.config.n_averaged)
        return terms

    def averaged_of(self, x_CF: Tensor) -> Tensor:
        """(2) by the averaged weights, (C,)."""
        return torch.cat([self.network_of(some, self.averaged) for some in torch.split(x_CF, _PAIRS_IN_CACHE)])

    def score_all(self, users_B: Tensor) -> Tensor:
        """(6). What was bought takes no place."""
        score_BI, new_BI = self._all(self.rows, users_B)
        if not self.config.discovery:
            return score_BI
        start_B, bought_E = take_rows(self.bought_start_U, self.bought_E, users_B)
        free_BI = torch.ones_like(new_BI)
        free_BI[rows_of(start_B), bought_E] = False
        return placed(score_BI, self.config.discovery * new_BI, free_BI, self.config.n_places)

    def fold_in(self, history: Edges) -> Tensor:
        """(2) of new users, who come with what they bought, and have met nothing else."""
        users_B = torch.arange(len(history.start_U) - 1, device=self.scale_F.device)
        return self._all(Rows.of_target(history, len(self.rows.start_RU)), users_B)[0]

    def _all(self, rows: Rows, users_B: Tensor) -> tuple[Tensor, Tensor]:
        """(2) of each user with each item, and whether no auxiliary behaviour has an edge of the pair; both (B, I)."""
        met_by = [n for n, kind in enumerate(self.evidence.kinds) if kind == "edge"]
        tables = self.evidence.of_blocks(rows, users_B, torch.arange(self.n_items, device=users_B.device))
        parts = [(self.averaged_of(x_CF), (x_CF[:, met_by] == 0).all(1)) for x_CF in tables]
        score_C, new_C = map(torch.cat, zip(*parts, strict=True))
        return score_C.view(len(users_B), self.n_items), new_C.view(len(users_B), self.n_items)


MODEL = EvidenceModel
