"""Evidence: what a user is about to buy, judged by what they have done with it. Ours; not published anywhere.

Four of five purchases are of items that the buyer has met before, by a view or a cart. Factor models and graph
convolutions give a pair a score through two vectors, and so cannot say that this very user has met this very item;
simple rules can, and beat them. Here every pair is described by what is known of it (``macrorec.ops.evidence``: its
own edges by each behaviour, how often such edges led to a purchase, the user's habits, and what the user's other items
say), and one small network learns what that is worth, for items met before and for all others on one scale.

| equation                                                                     | here                              |
|------------------------------------------------------------------------------|-----------------------------------|
| (1) x_ui = evidence of the pair, without the purchase that is asked for       | ``table``                         |
| (2) s_ui = MLP(x_ui)                                                          | ``score``                         |
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

from macrorec.api import Model, PairBatch, Pairwise, take_rows
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Edges, Graph
from macrorec.ops.evidence import KINDS, Evidence, Rows
from macrorec.ops.mlp import MLP, n_weights

_PAIRS_AT_ONCE = 1 << 17  # whose evidence is held while many are scored


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceConfig:
    """Chosen on validation: there is no paper."""

    hidden: tuple[int, ...] = (32, 16)
    """Widths of the hidden layers of (2)."""
    n_sampled: int = 64
    """N, items drawn per purchase to stand for those that the user has not met."""
    prior: float = 10.0
    """Users at the mean rate that count beside an item's own, in its rates."""
    shrinkage: float = 5.0
    """Added to the denominators of cosines between items."""
    n_neighbors: int = 100
    """Most similar items that count per item, within an auxiliary behaviour."""
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
    kept_F: Tensor

    def __init__(self, config: EvidenceConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.batches = Pairwise(n=config.n_sampled, true_negatives=True)
        self.evidence = Evidence(graph, prior=config.prior, shrinkage=config.shrinkage, n_neighbors=config.n_neighbors)
        kinds = self.evidence.kinds
        self.register_buffer("kept_F", torch.tensor([kind not in config.without for kind in kinds]), persistent=False)
        self.network = MLP(len(kinds), config.hidden, "relu")
        self.refresh(graph)

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
            self.register_buffer(name, value.to(self.kept_F.device), persistent=False)

    def table(
        self, users_B: Tensor, held_B: Tensor, start_B: Tensor, items_C: Tensor, rows: Rows | None = None
    ) -> Tensor:
        """(1): evidence (C, F) of each user with items_C[start_B[b] : start_B[b + 1]], purchase ``held_B`` undone."""
        given = (tensor.cpu() for tensor in (users_B, held_B, start_B, items_C))
        return self.evidence.table(rows or self.rows, *given).to(items_C.device) * self.kept_F

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
        score_C = self.network(x_CF)
        total_B = _log_sum_exp(score_C + weight_C[order_C], user_C[order_C], len(users_B))
        return {"choice": (total_B - score_C[start_B[:-1]]).mean()}

    def score(self, users_B: Tensor, items_B: Tensor) -> Tensor:
        distinct_B, row_B = torch.unique(users_B, return_inverse=True)
        order_B = torch.argsort(row_B, stable=True)
        sizes = torch.bincount(row_B, minlength=len(distinct_B))
        scores_B = torch.empty(len(users_B), device=users_B.device)
        scores_B[order_B] = self._scores(distinct_B, sizes, items_B[order_B])
        return scores_B

    def score_all(self, users_B: Tensor) -> Tensor:
        items_I = torch.arange(self.n_items, device=users_B.device)
        return self.score_some(users_B, items_I)

    def score_some(self, users_B: Tensor, items_C: Tensor) -> Tensor:
        sizes_B = torch.full_like(users_B, len(items_C))
        return self._scores(users_B, sizes_B, items_C.repeat(len(users_B))).view(len(users_B), len(items_C))

    def fold_in(self, history: Edges) -> Tensor:
        """The same for new users, who come with what they bought."""
        users_B = torch.arange(len(history.start_U) - 1, device=self.kept_F.device)
        items_C = torch.arange(self.n_items, device=self.kept_F.device).repeat(len(users_B))
        rows = Rows.of_target(history, len(self.rows.start_RU))
        return self._scores(users_B, torch.full_like(users_B, self.n_items), items_C, rows).view(-1, self.n_items)

    def _scores(self, users_B: Tensor, sizes_B: Tensor, items_C: Tensor, rows: Rows | None = None) -> Tensor:
        """(2) for as many items of each user as ``sizes_B`` says, some users at a time."""
        start_B = torch.cat([sizes_B.new_zeros(1), sizes_B.cumsum(0)])
        at_once = max(1, _PAIRS_AT_ONCE // max(self.n_items, 1))
        none_B = torch.full_like(users_B, -1)
        scores = [torch.zeros(0, device=items_C.device)]
        for first in range(0, len(users_B), at_once):
            some, starts = slice(first, first + at_once), start_B[first : first + at_once + 1]
            items = items_C[int(starts[0]) : int(starts[-1])]
            scores.append(self.network(self.table(users_B[some], none_B[some], starts - starts[0], items, rows)))
        return torch.cat(scores)


def _log_sum_exp(value_C: Tensor, row_C: Tensor, n_rows: int) -> Tensor:
    """ln sum exp of the values of each row, (n_rows,)."""
    top_B = value_C.new_full((n_rows,), -math.inf).scatter_reduce(0, row_C, value_C.detach(), "amax")
    total_B = value_C.new_zeros(n_rows).index_add(0, row_C, (value_C - top_B[row_C]).exp())
    return total_B.log() + top_B


MODEL = EvidenceModel
