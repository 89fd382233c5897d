"""Evidence: what a user is about to buy, judged by what they have done with it. Ours; not published anywhere.

Four of five purchases are of items that the buyer has met before, by a view or a cart. Factor models and graph
convolutions give a pair a score through two vectors, and so cannot say that this very user has met this very item;
simple rules can, and beat them. Here every pair is described by what is known of it (``macrorec.ops.evidence``: its
own edges by each behaviour, how often such edges led to a purchase, the user's habits, and what the user's other items
say), and one small network learns what that is worth, for items met before and for all others on one scale.

| equation                                                                     | here                              |
|------------------------------------------------------------------------------|-----------------------------------|
| (1) x_ui = evidence of the pair, without the purchase that is asked for       | ``table``                         |
| (2) s_ui = MLP((x_ui - m) / d), m and d of the pairs that train knows          | ``network_of``                    |
| (3) P(u buys p next) = exp(s_up) / sum over all i not bought of exp(s_ui)     | ``losses``: mean of -ln P         |

For each purchase p in train, p is taken back, and (3) asks which of the items not bought it was. Its sum runs over the
user's own items exactly, and over all others by n of them drawn uniformly, each standing for as many as it represents.
Since (3) is a probability over all items, the two kinds of item need no weighing against each other.

Deviations: none, for there is no paper.

Shape letters: B batch, U users, I items, C pairs, F columns of evidence, N sampled items, R behaviours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from macrorec.api import Model, PairBatch, Pairwise, take_rows
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Edges, Graph
from macrorec.ops.evidence import KINDS, Evidence, Rows
from macrorec.ops.mlp import MLP, n_weights

_PAIRS_AT_ONCE = 1 << 17  # whose evidence is held while many are scored
_PAIRS_IN_CACHE = 1 << 12  # whose hidden layers stay near the processor: 5 times as fast as all at once
_USERS_AT_ONCE = 1 << 10  # whose pairs are held while means are taken
_CONSTANT = 1e-4  # the deviation of a column below which it counts as constant


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceConfig:
    """Chosen on validation: there is no paper."""

    hidden: tuple[int, ...] = (64, 32)
    """Widths of the hidden layers of (2)."""
    n_sampled: int = 256
    """N, items drawn per purchase to stand for those that the user has not met."""
    prior: float = 10.0
    """Users at the mean rate that count beside an item's own, in its rates."""
    shrinkage: float = 5.0
    """Added to the denominators of cosines between items."""
    n_neighbors: int = 100
    """Most similar items that count per item, within an auxiliary behaviour."""
    discovery: float = 0.0
    """Added to the score of every item that the user has not met: e^x times as likely as learned. 0 is what was learned
    and best over all; more of it moves new items up at the cost of the user's own."""
    without: tuple[str, ...] = ()
    """Kinds of evidence to leave out: of ``macrorec.ops.evidence.KINDS``."""

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.without if kind not in KINDS]:
            raise ConfigError(f"evidence.without: {unknown[0]!r} is no kind of evidence; there are {', '.join(KINDS)}")
        if self.prior <= 0 or self.shrinkage <= 0 or self.n_neighbors < 1 or self.n_sampled < 1:
            raise ConfigError("evidence needs prior and shrinkage above 0, n_neighbors and n_sampled of at least 1")


class EvidenceModel(Model):
    """A small network over what is known of a pair, learned as a choice among all items."""

    Config = EvidenceConfig
    config: EvidenceConfig
    start_U: Tensor
    item_E: Tensor
    n_known_U: Tensor
    centre_F: Tensor
    scale_F: Tensor

    def __init__(self, config: EvidenceConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.batches = Pairwise(n=config.n_sampled, true_negatives=True)
        self.evidence = Evidence(graph, prior=config.prior, shrinkage=config.shrinkage, n_neighbors=config.n_neighbors)
        kinds = self.evidence.kinds
        self.network = MLP(len(kinds), config.hidden, "relu")
        self.register_buffer("centre_F", torch.zeros(len(kinds)), persistent=False)
        self.register_buffer("scale_F", torch.ones(len(kinds)), persistent=False)
        self.refresh(graph)
        self.standardise(graph)

    def initialise(self, generator: torch.Generator) -> None:
        """Matrices: Xavier, uniform; biases: 0."""
        self.network.initialise(generator)

    @classmethod
    def memory(cls, config: EvidenceConfig, graph: Graph) -> int:
        n_columns = 10 * len(graph.edges)
        pairs = 4 * _PAIRS_AT_ONCE * (n_columns + 2 * sum(config.hidden))
        weights = 16 * n_weights(n_columns, config.hidden)
        edges = 24 * sum(map(len, graph.edges)) + 32 * graph.n_nodes
        return Evidence.n_bytes(graph, config.n_neighbors) + pairs + weights + edges

    def refresh(self, graph: Graph) -> None:
        """New edges count at once as those of their users; what items led to stays as it was learned from."""
        self.rows = Rows.of(graph.edges)
        n = max(graph.n_items, 1)
        bought_Q = graph.target.user_E * n + graph.target.item_E
        met_Q = torch.unique(torch.cat([edges.user_E * n + edges.item_E for edges in graph.edges]))
        open_Q = met_Q[~torch.isin(met_Q, bought_Q)]
        start_U = torch.zeros(graph.n_users + 1, dtype=torch.int64)
        torch.cumsum(torch.bincount(open_Q // n, minlength=graph.n_users), 0, out=start_U[1:])
        known_U = torch.bincount(met_Q // n, minlength=graph.n_users)
        for name, value in {"start_U": start_U, "item_E": open_Q % n, "n_known_U": known_U}.items():
            self.register_buffer(name, value.to(self.scale_F.device), persistent=False)

    def standardise(self, graph: Graph) -> None:
        """m and d of (2): mean and deviation over all pairs with an edge of any behaviour."""
        n, kinds = max(graph.n_items, 1), self.evidence.kinds
        pair_Q = torch.unique(torch.cat([edges.user_E * n + edges.item_E for edges in graph.edges]))
        start_U = torch.cat([pair_Q.new_zeros(1), torch.bincount(pair_Q // n, minlength=graph.n_users).cumsum(0)])
        total_F, square_F = torch.zeros(2, len(kinds), dtype=torch.float64)
        for some_U in torch.split(torch.arange(graph.n_users), _USERS_AT_ONCE):
            begin, end = int(start_U[some_U[0]]), int(start_U[some_U[-1] + 1])
            starts = start_U[int(some_U[0]) : int(some_U[-1]) + 2] - begin
            x_QF = self.table(some_U, torch.full_like(some_U, -1), starts, pair_Q[begin:end] % n).double()
            total_F, square_F = total_F + x_QF.sum(0), square_F + x_QF.square().sum(0)
        mean_F = total_F / max(len(pair_Q), 1)
        deviation_F = (square_F / max(len(pair_Q), 1) - mean_F.square()).clamp(min=0).sqrt()
        kept_F = torch.tensor([kind not in self.config.without for kind in kinds])
        self.centre_F = mean_F.float()
        self.scale_F = (kept_F / torch.where(deviation_F > _CONSTANT, deviation_F, 1)).float()

    def table(
        self, users_B: Tensor, held_B: Tensor, start_B: Tensor, items_C: Tensor, rows: Rows | None = None
    ) -> Tensor:
        """(1): evidence (C, F) of each user with items_C[start_B[b] : start_B[b + 1]], purchase ``held_B`` undone."""
        given = (tensor.cpu() for tensor in (users_B, held_B, start_B, items_C))
        return self.evidence.table(rows or self.rows, *given).to(items_C.device)

    def network_of(self, x_CF: Tensor) -> Tensor:
        """(2): the score of each pair, (C,). Evidence left out has the scale 0."""
        first = self.network.layers[0]
        weight_HF, bias_H = first.get_parameter("weight") * self.scale_F, first.get_parameter("bias")
        return self.network.after_first(linear(x_CF, weight_HF, bias_H - weight_HF @ self.centre_F))

    def ranked_by(self, x_CF: Tensor) -> Tensor:
        """(2), with ``discovery`` added where no auxiliary behaviour has an edge, (C,)."""
        score_C = torch.cat([self.network_of(some) for some in torch.split(x_CF, _PAIRS_IN_CACHE)])
        met_by = [n for n, kind in enumerate(self.evidence.kinds) if kind == "edge"]
        if not self.config.discovery or not met_by:
            return score_C
        return score_C + self.config.discovery * (x_CF[:, met_by] == 0).all(1)

    def losses(self, batch: PairBatch) -> dict[str, Tensor]:
        """(3), with each user's own items in full and the drawn ones scaled up to all that they stand for."""
        users_B, held_B, drawn_BN = batch.users_B, batch.items_B, batch.negatives_BN
        start_B, own_E = take_rows(self.start_U, self.item_E, users_B)
        user_E = torch.arange(len(users_B), device=users_B.device).repeat_interleave(start_B.diff())
        user_S = torch.arange(len(users_B), device=users_B.device).repeat_interleave(drawn_BN.shape[1])
        own_Q = user_E * self.n_items + own_E
        new_S = ~torch.isin(user_S * self.n_items + drawn_BN.flatten(), own_Q)
        user_S, drawn_S = user_S[new_S], drawn_BN.flatten()[new_S]
        n_drawn_B = torch.bincount(user_S, minlength=len(users_B))
        weight_B = ((self.n_items - self.n_known_U[users_B]).clamp(min=1) / n_drawn_B.clamp(min=1)).log()
        user_C = torch.cat([torch.arange(len(users_B), device=users_B.device), user_E, user_S])
        item_C = torch.cat([held_B, own_E, drawn_S])
        weight_C = torch.cat([weight_B.new_zeros(len(users_B) + len(own_E)), weight_B[user_S]])
        order_C = torch.argsort(user_C, stable=True)
        start_B = torch.cat([start_B.new_zeros(1), torch.bincount(user_C, minlength=len(users_B)).cumsum(0)])
        x_CF = self.table(users_B, held_B, start_B, item_C[order_C])
        score_C = self.network_of(x_CF)
        total_B = _log_sum_exp(score_C + weight_C[order_C], user_C[order_C], len(users_B))
        return {"choice": (total_B - score_C[start_B[:-1]]).mean()}

    def score(self, users_B: Tensor, items_B: Tensor) -> Tensor:
        """(2) of pairs, sorted by user: what the user's edges say is collected once per user."""
        distinct_U, row_B = torch.unique(users_B, return_inverse=True)
        scores_B = torch.empty(len(users_B), device=users_B.device)
        for some_C in torch.split(torch.argsort(row_B, stable=True), _PAIRS_AT_ONCE) if len(users_B) else ():
            begin, end = (int(row_B[some_C[n]]) for n in (0, -1))
            size_U = torch.bincount(row_B[some_C] - begin, minlength=end - begin + 1)
            start_U = torch.cat([size_U.new_zeros(1), size_U.cumsum(0)])
            some_U = distinct_U[begin : end + 1]
            x_CF = self.table(some_U, torch.full_like(some_U, -1), start_U, items_B[some_C])
            scores_B[some_C] = self.ranked_by(x_CF)
        return scores_B

    def score_all(self, users_B: Tensor) -> Tensor:
        return self.score_some(users_B, torch.arange(self.n_items, device=users_B.device))

    def score_some(self, users_B: Tensor, items_C: Tensor) -> Tensor:
        return self._block(users_B, items_C, self.rows)

    def fold_in(self, history: Edges) -> Tensor:
        """The same for new users, who come with what they bought."""
        users_B = torch.arange(len(history.start_U) - 1, device=self.scale_F.device)
        rows = Rows.of_target(history, len(self.rows.start_RU))
        return self._block(users_B, torch.arange(self.n_items, device=users_B.device), rows)

    def _block(self, users_B: Tensor, items_C: Tensor, rows: Rows) -> Tensor:
        """(2) of every one of the items for each user, (B, C), for some users at a time."""
        scores_BC = torch.empty(len(users_B), len(items_C), device=users_B.device)
        at_once = max(1, _PAIRS_AT_ONCE // max(len(items_C), 1))
        for first in range(0, len(users_B), at_once):
            some_B = users_B[first : first + at_once]
            start_B = torch.arange(len(some_B) + 1, device=users_B.device) * len(items_C)
            x_CF = self.table(some_B, torch.full_like(some_B, -1), start_B, items_C.repeat(len(some_B)), rows)
            scores_BC[first : first + at_once] = self.ranked_by(x_CF).view(len(some_B), len(items_C))
        return scores_BC


def _log_sum_exp(value_C: Tensor, row_C: Tensor, n_rows: int) -> Tensor:
    """ln sum exp of the values of each row, (n_rows,)."""
    top_B = value_C.new_full((n_rows,), -math.inf).scatter_reduce(0, row_C, value_C.detach(), "amax")
    total_B = value_C.new_zeros(n_rows).index_add(0, row_C, (value_C - top_B[row_C]).exp())
    return total_B.log() + top_B


MODEL = EvidenceModel
