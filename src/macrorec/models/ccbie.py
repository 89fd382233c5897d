"""CCBIE: a pair is likely if its vectors are near, or if the user likes the clusters that the item belongs to.

Zhang, Lin, Rao & Bu, Efficient bipartite graph embedding induced by clustering constraints. No code was released.

| equation                                            | here                                             |
|-----------------------------------------------------|--------------------------------------------------|
| sec. IV-A2: U, V and C                              | ``users_UD``, ``items_ID``, ``centres_KD``       |
| (1): Y~ = (cos(u, v) + 1) / 2                       | ``explicit``                                     |
| (2), (5): T = cos(v, C), P = cos(u, C)              | ``affinity``                                     |
| (2), (6): T^M = MLP(T), P^M = MLP(P)                | ``mlp`` with ``of_items``, ``of_users``          |
| (3), (4): T^V = T^O / sum_l T^O, T^O = sigmoid(T^M) | ``assignment``; (15) of the variant ``softmax``  |
| (6): P^O = sigmoid(P^M)                             | ``preference``                                   |
| (7): Y^ = P^O (T^V)^T                               | ``implicit``                                     |
| (8): Y = alpha Y~ + (1 - alpha) Y^                  | ``likelihood``; ``encode`` as one inner product  |
| (9), (10): sum over sampled pairs of (E - Y)^2      | ``structure``                                    |
| (11): -beta sum_{i<j} norm(C_i - C_j)^2             | ``disentangle``                                  |
| (12): the sum of both                               | ``losses``                                       |

Deviations: (11) has no lower bound in the norms of C, while all else sees directions only; ``spread`` says where it is
taken. An epoch meets every edge once, with uniform negatives; the paper does not say what (10) runs over in a batch.
Its MLPs have no activation that it names, ours ``activation``. Ours, off by default: (10) over all pairs, without
drawing (``negatives``), by weights of user and item. A user without an edge in train scores as all others do on
average, where the paper leaves what the vector started from (``cold``).

Shape letters: B batch, U users, I items, D embedding, K clusters, H hidden (K_h), Q preferences (K_q), N negatives per
positive, M = 1 + N, Z = D + Q + 1 numbers of the inner product, E pairs of the batch's users.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear, normalize

from macrorec.api import Batch, PairBatch, Pairwise, RowBatch, Step, TwoTower, UserRows
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Edges, Graph
from macrorec.ops.clusters import ClusterAdam, Terms, one_step_serves
from macrorec.ops.descent import descend
from macrorec.ops.whole import OtherPairs

# Of a new user's own descent: on MovieLens 100K to within 1 % of the loss after 1,000 steps.
FOLD_STEPS, FOLD_RATE = 100, 0.03
# Pairs of new users and their items whose vectors are held at once.
_PAIRS_AT_ONCE = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class CCBIEConfig:
    """Values of the paper, section V-A, where it gives them; K, K_h, K_q, N and the activation it does not give."""

    dim: int = 64
    """D, length of the vectors."""
    n_clusters: int = 32
    """K, clusters of items, each with a centre."""
    hidden: int = 32
    """K_h, width of the hidden layer of both MLPs."""
    n_preferences: int = 32
    """K_q, what the MLPs make of K clusters."""
    alpha: float = 0.7
    """Weight of the explicit part in (8)."""
    beta: float = 0.005
    """Weight of (11)."""
    n_negatives: int = 4
    """N, negatives per positive."""
    negative_weight: float = 1.0
    """Ours: what the square of a negative counts in (10), where that of a positive counts 1."""
    true_negatives: bool = True
    """Whether a negative may be no train item of the user."""
    negatives: Literal["drawn", "all"] = "drawn"
    """N per positive, drawn; or (ours) all pairs of the batch's users that are no edge, each as often as one would be
    drawn on average: the same loss without noise, exact by Gram matrices. A batch is then one of users."""
    by_user: float = 1.0
    """Of ``all``: what one pair of a user weighs is a power of the user's edges per pair. 1: as if drawn for each
    edge. 0: all pairs the same."""
    by_item: float = 0.0
    """Of ``all``: negatives of an item weigh as this power of one more than its edges."""
    cold: Literal["mean", "random"] = "mean"
    """The user's side of (8) of a user without an edge in train: the mean of all others'; or as it was initialised."""
    variant: Literal["full", "explicit", "implicit", "no-mlp", "softmax"] = "full"
    """The ablations of Fig. 6: CCBIE_E has (1) alone, CCBIE_I (7) alone, CCBIE_M no MLPs, CCBIE_S (15)."""
    activation: Literal["relu", "tanh", "sigmoid", "none"] = "relu"
    """Of the hidden layer of both MLPs."""
    spread: Literal["sphere", "raw"] = "sphere"
    """Where (11) is taken: of directions C / |C|, where it is bounded; or of C as printed, whose norms then grow."""
    over: Literal["sum", "mean"] = "sum"
    """(10) of a batch: sum over its pairs as printed; or their mean, beside which (11) weighs B (1 + N) times more."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"ccbie.alpha must lie between 0 and 1, not {self.alpha!r}")
        if not 0 <= self.beta < math.inf:
            raise ConfigError(f"ccbie.beta must be finite and at least 0, not {self.beta!r}")
        if not 0 < self.negative_weight < math.inf:
            raise ConfigError(f"ccbie.negative_weight must be finite and above 0, not {self.negative_weight!r}")
        if not (0 <= self.by_user <= 1 and 0 <= self.by_item <= 1):
            raise ConfigError(f"ccbie.by_user, by_item must lie in [0, 1], not {self.by_user!r}, {self.by_item!r}")
        if self.negatives == "drawn" and (self.by_user, self.by_item) != (1, 0):
            raise ConfigError("ccbie.by_user and by_item weigh pairs that are not drawn: set negatives to 'all'")
        sizes = {"dim": self.dim}
        if self.variant != "explicit":
            if self.variant != "no-mlp":
                sizes["hidden"] = self.hidden
            sizes["n_clusters"] = self.n_clusters
            if self.variant != "no-mlp":
                sizes["n_preferences"] = self.n_preferences
        values = list(sizes.values())
        if values != sorted(values, reverse=True) or values[-1] < 1:
            shown = ", ".join(f"{name} {value}" for name, value in sizes.items())
            raise ConfigError(f"ccbie needs {' >= '.join(sizes)} >= 1, as the paper does; got {shown}")

    @property
    def share(self) -> float:
        """Alpha of (8); one and zero for CCBIE_E and CCBIE_I."""
        return {"explicit": 1.0, "implicit": 0.0}.get(self.variant, self.alpha)


class CCBIE(TwoTower):
    """Cosines of vectors, and preferences for soft clusters; learned by squares."""

    Config = CCBIEConfig
    config: CCBIEConfig
    cold_U: Tensor

    def __init__(self, config: CCBIEConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        drawn = Pairwise(n=config.n_negatives, true_negatives=config.true_negatives)
        self.batches = drawn if config.negatives == "drawn" else UserRows()
        self.users_UD = nn.Parameter(torch.zeros(graph.n_users, config.dim))
        self.items_ID = nn.Parameter(torch.zeros(graph.n_items, config.dim))
        self.clustered = config.variant != "explicit"
        if self.clustered:
            self.centres_KD = nn.Parameter(torch.zeros(config.n_clusters, config.dim))
        self.of_users, self.of_items = (
            nn.ParameterList(map(torch.zeros, _shapes(config)) if self.clustered and config.variant != "no-mlp" else ())
            for _ in range(2)
        )
        self.own: ClusterAdam | None = None
        per_edge, known = config.n_negatives * config.negative_weight, graph.target
        by = {"by_user": config.by_user, "by_item": config.by_item}
        self.others = OtherPairs(known, graph.n_items, per_edge, **by, apart=config.true_negatives)
        self.register_buffer("cold_U", known.start_U.diff() == 0, persistent=False)

    def initialise(self, generator: torch.Generator) -> None:
        """Xavier's uniform values for tables, centres and matrices; biases: 0."""
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter, generator=generator)
            else:
                nn.init.zeros_(parameter)

    @classmethod
    def memory(cls, config: CCBIEConfig, graph: Graph) -> int:
        """Tables, centres and matrices with gradients and Adam's two moments; both sides of the inner product."""
        small = config.n_clusters * config.dim + 2 * sum(map(math.prod, _shapes(config)))
        width = config.dim + config.n_preferences + 1
        passed = graph.n_items * (4 * width + 4 * config.n_clusters + 4 * config.hidden)
        held = 4 * (graph.n_nodes * config.dim + small) + graph.n_nodes * width
        return 4 * (held + (passed if config.negatives == "all" else 0))

    def affinity(self, x_BD: Tensor) -> Tensor:
        """(2), (5): cosines with all centres, (..., K)."""
        return normalize(x_BD, dim=-1) @ normalize(self.centres_KD, dim=-1).T

    def mlp(self, weights: nn.ParameterList, x_BK: Tensor) -> Tensor:
        """The MLP of (2) and (6), K -> K_h -> K_q; CCBIE_M has none."""
        if not len(weights):
            return x_BK
        first_HK, bias_H, second_QH, bias_Q = weights
        return linear(_activation(self.config.activation, linear(x_BK, first_HK, bias_H)), second_QH, bias_Q)

    def assignment(self, items_BD: Tensor) -> Tensor:
        """(2) to (4): T^V, shape (..., Q), whose rows sum to one; (15) of CCBIE_S."""
        t_BQ = self.mlp(self.of_items, self.affinity(items_BD)).sigmoid()
        if self.config.variant == "softmax":
            return t_BQ.softmax(-1)
        return t_BQ / t_BQ.sum(-1, keepdim=True)

    def preference(self, users_BD: Tensor) -> Tensor:
        """(5), (6): P^O, shape (..., Q), in (0, 1)."""
        return self.mlp(self.of_users, self.affinity(users_BD)).sigmoid()

    def explicit(self, users_BD: Tensor, items_BD: Tensor) -> Tensor:
        """(1)."""
        return ((normalize(users_BD, dim=-1) * normalize(items_BD, dim=-1)).sum(-1) + 1) / 2

    def implicit(self, users_BD: Tensor, items_BD: Tensor) -> Tensor:
        """(7)."""
        return (self.preference(users_BD) * self.assignment(items_BD)).sum(-1)

    def likelihood(self, users_BD: Tensor, items_BD: Tensor) -> Tensor:
        """(8) of pairs of rows, in [0, 1]."""
        alpha = self.config.share
        if not self.clustered:
            return self.explicit(users_BD, items_BD)
        return alpha * self.explicit(users_BD, items_BD) + (1 - alpha) * self.implicit(users_BD, items_BD)

    def user_vectors(self, users_BD: Tensor) -> Tensor:
        """The user's side of (8) as an inner product: [sqrt(alpha/2) u/|u|; sqrt(1 - alpha) P^O; alpha/2], (B, Z)."""
        alpha = self.config.share
        parts = [math.sqrt(alpha / 2) * normalize(users_BD, dim=-1)]
        if self.clustered:
            parts.append(math.sqrt(1 - alpha) * self.preference(users_BD))
        return torch.cat([*parts, torch.full_like(users_BD[:, :1], alpha / 2)], -1)

    def item_vectors(self, items_BD: Tensor) -> Tensor:
        """The item's side: [sqrt(alpha/2) v/|v|; sqrt(1 - alpha) T^V; 1], (B, Z)."""
        alpha = self.config.share
        parts = [math.sqrt(alpha / 2) * normalize(items_BD, dim=-1)]
        if self.clustered:
            parts.append(math.sqrt(1 - alpha) * self.assignment(items_BD))
        return torch.cat([*parts, torch.ones_like(items_BD[:, :1])], -1)

    def encode(self) -> tuple[Tensor, Tensor]:
        return self.met(self.user_vectors(self.users_UD)), self.item_vectors(self.items_ID)

    def met(self, rows_U: Tensor) -> Tensor:
        """The same rows (U, ...), where users without an edge in train have the mean of all others', if any."""
        if self.config.cold == "random" or not self.cold_U.any() or self.cold_U.all():
            return rows_U
        return torch.where(self.cold_U[:, None], rows_U[~self.cold_U].mean(0), rows_U)

    def score(self, users_B: Tensor, items_B: Tensor) -> Tensor:
        """(8) of pairs; only their rows are computed, unless a user has no edge in train."""
        if self.config.cold == "mean" and self.cold_U[users_B].any():
            return super().score(users_B, items_B)
        return self.likelihood(embedding(users_B, self.users_UD), embedding(items_B, self.items_ID))

    def clusters(self) -> tuple[Tensor, Tensor] | None:
        """P^O of all users (U, Q), not normalised, and T^V of all items (I, Q), rows sum to one; CCBIE_E: None."""
        if not self.clustered:
            return None
        with torch.no_grad():
            return self.met(self.preference(self.users_UD)), self.assignment(self.items_ID)

    def structure(self, y_BM: Tensor) -> Tensor:
        """(10): sum (or mean) of (E - Y)^2; E is 1 in the first column and 0 in the others."""
        square_BM = torch.cat([1 - y_BM[:, :1], math.sqrt(self.config.negative_weight) * y_BM[:, 1:]], 1).square()
        return square_BM.sum() if self.config.over == "sum" else square_BM.mean()

    def whole(self, batch: RowBatch) -> Tensor:
        """(10) over all pairs of the batch's users; its mean is over as many as would be drawn."""
        users_BZ = self.user_vectors(embedding(batch.users_B, self.users_UD))
        total = self.others.squares(users_BZ, self.item_vectors(self.items_ID), batch.start_B, batch.items_E)
        return total if self.config.over == "sum" else total / (len(batch.items_E) * (1 + self.config.n_negatives))

    def disentangle(self) -> Tensor:
        """(11) by sum_{i<j} |C_i - C_j|^2 = K sum_i |C_i|^2 - |sum_i C_i|^2."""
        c_KD = normalize(self.centres_KD, dim=-1) if self.config.spread == "sphere" else self.centres_KD
        return -self.config.beta * (len(c_KD) * c_KD.square().sum() - c_KD.sum(0).square().sum())

    def losses(self, batch: PairBatch | RowBatch) -> dict[str, Tensor]:
        """(12), term by term."""
        if isinstance(batch, RowBatch):
            terms = {"structure": self.whole(batch)}
        else:
            users_BD = embedding(batch.users_B, self.users_UD)
            items_BMD = embedding(torch.cat([batch.items_B[:, None], batch.negatives_BN], 1), self.items_ID)
            terms = {"structure": self.structure(self.likelihood(users_BD[:, None], items_BMD))}
        if self.clustered and self.config.beta:
            terms["clusters"] = self.disentangle()
        return terms

    def optimizer(
        self, kind: str, *, lr: float, weight_decay: float, clip_norm: float | None
    ) -> torch.optim.Optimizer | None:
        """Adam on the CPU by one compiled loop; torch's elsewhere, for double numbers, and with clipped gradients."""
        config, self.own = self.config, None
        drawn = config.negatives == "drawn"
        if drawn and kind == "adam" and clip_norm is None and one_step_serves(self.users_UD):
            centres = [self.centres_KD] if self.clustered else []
            terms = Terms(
                alpha=config.share,
                beta=config.beta,
                negative=config.negative_weight,
                activation=config.activation,
                softmax=config.variant == "softmax",
                raw=config.spread == "raw",
                mean=config.over == "mean",
            )
            tables, small = (self.users_UD, self.items_ID), [*centres, *self.of_users, *self.of_items]
            self.own = ClusterAdam(*tables, small, terms, lr=lr, weight_decay=weight_decay)
        return self.own

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """``losses`` and a step; by the compiled loop both are one."""
        if self.own is None:
            return super().training_step(batch, step)
        assert isinstance(batch, PairBatch)
        structure, clusters = self.own.descend(batch.users_B, batch.items_B, batch.negatives_BN)
        return {"structure": structure} | ({"clusters": clusters} if self.clustered and self.config.beta else {})

    def train(self, mode: bool = True) -> Self:
        """Rows that no batch has had of late catch up before evaluation."""
        if self.own is not None and not mode:
            self.own.settle()
        return super().train(mode)

    def folding(self) -> Callable[[Edges], Tensor]:
        """User vectors (B, Z) of new users, who go down their share of (10) while items, centres and MLPs stand.

        What training draws, in expectation: a user's H pairs, and all others, by ``OtherPairs``. It starts from
        the sum of the items' directions; zero for one without items.
        """
        items_IZ = self.encode()[1].detach()
        gram_ZZ, unit_ID = self.others.gram(items_IZ), normalize(self.items_ID.detach(), dim=-1)

        def fold(history: Edges) -> Tensor:
            start_B = history.start_U.to(items_IZ.device)
            vectors_BZ = items_IZ.new_zeros(len(start_B) - 1, items_IZ.shape[1])
            for first, last in _blocks(history.start_U, _PAIRS_AT_ONCE):
                own_E = history.item_E[history.start_U[first] : history.start_U[last]].to(items_IZ.device)
                weight_B, row_E = self.others.weights(start_B[first : last + 1], own_E)
                sums_BD = unit_ID.new_zeros(last - first, unit_ID.shape[1]).index_add(0, row_E, unit_ID[own_E])
                weight_E = self.others.of_edges(weight_B, row_E, own_E)
                loss = self._own_loss(items_IZ[own_E], row_E, weight_E, weight_B, gram_ZZ)
                users_BD = descend(loss, normalize(sums_BD, dim=-1), steps=FOLD_STEPS, lr=FOLD_RATE)
                vectors_BZ[first:last] = (
                    self.user_vectors(users_BD).detach() * (start_B[first : last + 1].diff() > 0)[:, None]
                )
            return vectors_BZ

        return fold

    def _own_loss(
        self, own_EZ: Tensor, row_E: Tensor, weight_E: Tensor, weight_B: Tensor, gram_ZZ: Tensor
    ) -> Callable[[Tensor], Tensor]:
        """Each new user's share of (10), given the item's side of their pairs, and the weights of all others."""

        def loss(users_BD: Tensor) -> Tensor:
            p_BZ = self.user_vectors(users_BD)
            y_E = (embedding(row_E, p_BZ) * own_EZ).sum(-1)
            known_E = (1 - y_E).square() - weight_E * y_E.square()
            return self.others.over_items(p_BZ, weight_B, gram_ZZ).index_add(0, row_E, known_E)

        return loss


def _blocks(start_U: Tensor, size: int) -> list[tuple[int, int]]:
    """Runs of users, from and to, with at most ``size`` pairs, or one user."""
    blocks, first, n_users = [], 0, len(start_U) - 1
    while first < n_users:
        last = int(torch.searchsorted(start_U, start_U[first] + size, right=True)) - 1
        last = min(max(last, first + 1), n_users)
        blocks.append((first, last))
        first = last
    return blocks


def _shapes(config: CCBIEConfig) -> list[tuple[int, ...]]:
    """Of an MLP's matrices and biases."""
    n_in, hidden, n_out = config.n_clusters, config.hidden, config.n_preferences
    return [(hidden, n_in), (hidden,), (n_out, hidden), (n_out,)]


def _activation(kind: str, x_BH: Tensor) -> Tensor:
    match kind:
        case "relu":
            return x_BH.relu()
        case "tanh":
            return x_BH.tanh()
        case "sigmoid":
            return x_BH.sigmoid()
        case _:
            return x_BH


MODEL = CCBIE
