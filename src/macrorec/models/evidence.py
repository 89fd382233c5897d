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
| (4) q_ui = 1/4I + b_i/4E + a_ui/2: shares of draws for those never met         | ``draws``                         |
| (5) w'_t = w'_(t-1) + max(1/t, 1/T) (w_t - w'_(t-1)): weights that score      | ``training_step``                 |

For each purchase p in train, p is taken back, and (3) asks which of the items not bought it was. Its sum runs over the
user's own items exactly. All others are represented by N draws from (4), and each counts 1 / (N q_ui) times: on average
the sum is exact, where a draw that the user knows counts nothing. Of the draws a quarter is uniform, a quarter goes by
b_i, an item's buyers (E in all), and half by a_ui, the sum of cosines of the item with the user's purchases over that
of all items. Since (3) is a probability over all items, the two kinds of item need no weighing against each other.

A batch is of users with all their purchases, since what their other items say need then be collected only once.

Deviations: none, for there is no paper.

Shape letters: B users of a batch, P their purchases, U users, I items, C pairs, F columns of evidence, K similar items,
W all that are similar, N items drawn per user, S all that are drawn, E own items, Q these and the drawn ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from macrorec.api import Batch, Model, RowBatch, Step, UserRows, take_rows
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Edges, Graph
from macrorec.ops.evidence import KINDS, Evidence, Rows
from macrorec.ops.mlp import MLP, n_weights

_PAIRS_AT_ONCE = 1 << 17  # whose evidence is held while many are scored
_PAIRS_IN_CACHE = 1 << 12  # whose hidden layers stay near the processor: 5 times as fast as all at once
_USERS_AT_ONCE = 1 << 10  # whose pairs are held while means are taken
_TINY = 1e-30  # in place of a sum of nothing, by which nothing is divided
_CONSTANT = 1e-4  # the deviation of a column below which it counts as constant


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceConfig:
    """Chosen on validation: there is no paper."""

    hidden: tuple[int, ...] = (64, 32)
    """Widths of the hidden layers of (2)."""
    n_sampled: int = 64
    """N, items drawn per user to stand for those that the user has not met."""
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
    """Added to the score of every item that the user has not met: e^x times as likely as learned. 0 is what was learned
    and best over all; more of it moves new items up at the cost of the user's own."""
    without: tuple[str, ...] = ()
    """Kinds of evidence to leave out: of ``macrorec.ops.evidence.KINDS``."""

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.without if kind not in KINDS]:
            raise ConfigError(f"evidence.without: {unknown[0]!r} is no kind of evidence; there are {', '.join(KINDS)}")
        if self.prior <= 0 or self.shrinkage <= 0:
            raise ConfigError("evidence needs prior and shrinkage above 0")
        if min(self.n_neighbors, self.dim, self.n_sampled, self.n_averaged) < 1:
            raise ConfigError("evidence needs n_neighbors, dim, n_sampled and n_averaged of at least 1")


class EvidenceModel(Model):
    """A small network over what is known of a pair, learned as a choice among all items."""

    Config = EvidenceConfig
    config: EvidenceConfig
    start_U: Tensor
    item_E: Tensor
    share_I: Tensor
    near_IK: Tensor
    alike_IK: Tensor
    n_steps: Tensor
    centre_F: Tensor
    scale_F: Tensor

    def __init__(self, config: EvidenceConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        self.batches = UserRows()
        given = {"n_neighbors": config.n_neighbors, "dim": config.dim}
        self.evidence = Evidence(graph, prior=config.prior, shrinkage=config.shrinkage, **given)
        kinds = self.evidence.kinds
        self.network = MLP(len(kinds), config.hidden, "relu")
        self.averaged = _of_buffers(MLP(len(kinds), config.hidden, "relu"))
        self.register_buffer("n_steps", torch.zeros((), dtype=torch.int64))
        near_item, near_value = self.evidence.alike
        self.register_buffer("near_IK", torch.from_numpy(near_item), persistent=False)
        self.register_buffer("alike_IK", torch.from_numpy(near_value), persistent=False)
        self.register_buffer("centre_F", torch.zeros(len(kinds)), persistent=False)
        self.register_buffer("scale_F", torch.ones(len(kinds)), persistent=False)
        self.refresh(graph)
        self.standardise(graph)

    def initialise(self, generator: torch.Generator) -> None:
        """Matrices: Xavier, uniform; biases: 0. The average starts there, too."""
        self.network.initialise(generator)
        self.averaged.load_state_dict(self.network.state_dict())

    @classmethod
    def memory(cls, config: EvidenceConfig, graph: Graph) -> int:
        n_columns = 15 * len(graph.edges)
        pairs = 4 * _PAIRS_AT_ONCE * (n_columns + 2 * sum(config.hidden))
        weights = 16 * n_weights(n_columns, config.hidden)
        edges = 24 * sum(map(len, graph.edges)) + 32 * graph.n_nodes
        return Evidence.n_bytes(graph, config.n_neighbors, config.dim) + pairs + weights + edges

    def refresh(self, graph: Graph) -> None:
        """New edges count at once as those of their users; what items led to stays as it was learned from."""
        self.rows = Rows.of(graph.edges)
        n = max(graph.n_items, 1)
        bought_Q = graph.target.user_E * n + graph.target.item_E
        met_Q = torch.unique(torch.cat([edges.user_E * n + edges.item_E for edges in graph.edges]))
        open_Q = met_Q[~torch.isin(met_Q, bought_Q)]
        start_U = torch.zeros(graph.n_users + 1, dtype=torch.int64)
        torch.cumsum(torch.bincount(open_Q // n, minlength=graph.n_users), 0, out=start_U[1:])
        bought_I = torch.bincount(graph.target.item_E, minlength=graph.n_items)
        share_I = 0.5 / n + 0.5 * bought_I / max(len(graph.target), 1)
        for name, value in {"start_U": start_U, "item_E": open_Q % n, "share_I": share_I}.items():
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

    def network_of(self, x_CF: Tensor, network: MLP | None = None) -> Tensor:
        """(2): the score of each pair, (C,), by the averaged network. Evidence left out has the scale 0."""
        network = network or self.averaged
        first = network.layers[0].state_dict(keep_vars=True)
        weight_HF, bias_H = first["weight"] * self.scale_F, first["bias"]
        return network.after_first(linear(x_CF, weight_HF, bias_H - weight_HF @ self.centre_F))

    def ranked_by(self, x_CF: Tensor) -> Tensor:
        """(2), with ``discovery`` added where no auxiliary behaviour has an edge, (C,)."""
        score_C = torch.cat([self.network_of(some) for some in torch.split(x_CF, _PAIRS_IN_CACHE)])
        met_by = [n for n, kind in enumerate(self.evidence.kinds) if kind == "edge"]
        if not self.config.discovery or not met_by:
            return score_C
        return score_C + self.config.discovery * (x_CF[:, met_by] == 0).all(1)

    def losses(self, batch: RowBatch) -> dict[str, Tensor]:
        """(3), averaged over the purchases of the batch."""
        user_P = batch.users_B[_numbers(batch.start_B)]
        start_P, item_C, weight_C = self.choices(batch)
        score_C = self.network_of(self.table(user_P, batch.items_E, start_P, item_C), self.network)
        total_P = _log_sum_exp(score_C + weight_C, _numbers(start_P), len(user_P))
        return {"choice": (total_P - score_C[start_P[:-1]]).mean()}

    def choices(self, batch: RowBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Row pointers (P + 1,), items (C,) and ln of how many each stands for (C,), the purchase itself first."""
        users_B, n, device = batch.users_B, self.n_items, batch.users_B.device
        row_P = _numbers(batch.start_B)
        own_start_B, own_E = take_rows(self.start_U, self.item_E, users_B)
        own_E = _numbers(own_start_B) * n + own_E
        drawn_S, times_S = self.draws(row_P, batch.items_E, len(users_B), batch.generator)
        new_S = ~torch.isin(drawn_S, torch.cat([own_E, row_P * n + batch.items_E]))
        pair_Q = torch.cat([own_E, drawn_S[new_S]])
        weight_Q = torch.cat([torch.zeros(len(own_E), device=device), -times_S[new_S].log()])
        order_Q = torch.argsort(pair_Q // n, stable=True)
        start_B = torch.cat([pair_Q.new_zeros(1), torch.bincount(pair_Q // n, minlength=len(users_B)).cumsum(0)])
        start_P, place_C = take_rows(start_B, order_Q, row_P)
        at_C = torch.arange(len(place_C), device=device) + _numbers(start_P) + 1
        start_P = start_P + torch.arange(len(start_P), device=device)
        item_C = torch.empty(int(start_P[-1]), dtype=torch.int64, device=device)
        weight_C = torch.zeros(len(item_C), device=device)
        item_C[start_P[:-1]], item_C[at_C], weight_C[at_C] = batch.items_E, pair_Q[place_C] % n, weight_Q[place_C]
        return start_P, item_C, weight_C

    def draws(self, row_P: Tensor, items_P: Tensor, n_users: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(4): N items for each user b, as numbers b I + i, and how often each is drawn on average, (S,)."""
        n, device = self.n_items, row_P.device
        key_W, place = torch.unique((row_P[:, None] * n + self.near_IK[items_P]).flatten(), return_inverse=True)
        alike_W = torch.zeros(len(key_W), device=device).index_add(0, place, self.alike_IK[items_P].flatten())
        total_B = torch.zeros(n_users, device=device).index_add(0, key_W // n, alike_W)
        alike_W = alike_W / total_B.clamp(min=_TINY)[key_W // n]
        has_B = total_B > 0
        row_S = torch.arange(n_users, device=device).repeat_interleave(self.config.n_sampled)
        item_S = torch.multinomial(self.share_I, len(row_S), True, generator=generator)
        at_S, near_S = torch.rand(2, len(row_S), dtype=torch.float64, device=device, generator=generator)
        near_S = (near_S < 0.5) & has_B[row_S]
        if len(key_W):  # each user with similar items has a stretch of length 1 of the cumulated shares
            at_S += (has_B.cumsum(0) - 1)[row_S]
            found_S = torch.searchsorted(alike_W.double().cumsum(0), at_S).clamp(max=len(key_W) - 1)
            item_S = torch.where(near_S, key_W[found_S] % n, item_S)
        drawn_S = row_S * n + item_S
        share_S = self.share_I[item_S]
        if len(key_W):
            found_S = torch.searchsorted(key_W, drawn_S).clamp(max=len(key_W) - 1)
            alike_S = alike_W[found_S] * (key_W[found_S] == drawn_S)
            share_S = torch.where(has_B[row_S], (share_S + alike_S) / 2, share_S)
        return drawn_S, self.config.n_sampled * share_S

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """(5), after each step."""
        terms = super().training_step(batch, step)
        self.n_steps += 1
        with torch.no_grad():
            for mean, weight in zip(self.averaged.buffers(), self.network.parameters(), strict=True):
                mean.lerp_(weight, max(1 / int(self.n_steps), 1 / self.config.n_averaged))
        return terms

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


def _numbers(start_B: Tensor) -> Tensor:
    """The row of each entry of a matrix with these row pointers."""
    return torch.arange(len(start_B) - 1, device=start_B.device).repeat_interleave(start_B.diff())


def _of_buffers(network: MLP) -> MLP:
    """The same, whose weights no optimiser moves."""
    for layer in network.layers:
        for name, weight in [*layer.named_parameters()]:
            delattr(layer, name)
            layer.register_buffer(name, weight.detach())
    return network


def _log_sum_exp(value_C: Tensor, row_C: Tensor, n_rows: int) -> Tensor:
    """ln sum exp of the values of each row, (n_rows,)."""
    top_B = value_C.new_full((n_rows,), -math.inf).scatter_reduce(0, row_C, value_C.detach(), "amax")
    total_B = value_C.new_zeros(n_rows).index_add(0, row_C, (value_C - top_B[row_C]).exp())
    return total_B.log() + top_B


MODEL = EvidenceModel
