"""NMTR: how far a user goes with an item, view to purchase: each behaviour adds its product to the logit before it.

Gao, He, Gan, Chen, Feng, Li, Chua & Jin, Neural multi-task recommendation from multi-behavior data (ICDE 2019).

| equation                                    | here                                                  |
|---------------------------------------------|-------------------------------------------------------|
| f_r = h_r.(p o q), vectors shared           | ``interactions``                                      |
| y_r = s(f_r + logit_{r-1} + b_r), in order  | ``logits``                                            |
| L = sum_r lambda_r log loss_r, sum lambda 1 | ``losses``, ``shares_R``                              |

The target's logit is <(sum_r h_r) o p, q> and a constant, so that NMTR-GMF can retrieve; scores leave out the constant.

Deviations: logits are handed on, not probabilities. log loss_r is the sum over the batch's rows of behaviour r, over
the number of rows of all: with equal lambda every row counts alike, as in the paper. ``mean="behaviors"`` divides by
the rows of behaviour r alone, so that lambda weighs behaviours whatever their numbers of edges. ``l2`` is ours.

Shape letters: B rows of a batch, U users, I items, R behaviours, D embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, embedding

from macrorec.api import PointBatch, Pointwise, TwoTower
from macrorec.errors import ConfigError
from macrorec.graph.bipartite import Graph
from macrorec.ops.losses import l2_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class NMTRConfig:
    """The paper gives its constants per data set; those of NCF stand here, where it names none."""

    dim: int = 32
    """D, length of the vectors; the paper has 64, SWGCN's comparison 32."""
    weights: tuple[float, ...] | None = None
    """Lambda of each behaviour, in order, target last; None gives each the same. They must sum to 1."""
    mean: Literal["rows", "behaviors"] = "rows"
    """What log loss_r is divided by: the rows of the batch, or those of behaviour r."""
    l2: float = 0.0
    """Lambda of the l2 term: squared, halved, per row of the batch, vectors of the batch only."""
    init_std: float = 0.01
    """Deviation of the normal distribution that vectors start from."""
    n_negatives: int = 4
    """Negatives per positive of each behaviour."""
    true_negatives: bool = True
    """Whether a negative may be no train item of the user under its own behaviour."""

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ConfigError(f"dim must be at least 1, not {self.dim}")
        weights = (1.0,) if self.weights is None else self.weights
        if any(weight < 0 for weight in weights) or not math.isclose(sum(weights), 1, abs_tol=1e-6):
            raise ConfigError(f"weights must be at least 0 and sum to 1, not {list(weights)}")


class NMTR(TwoTower):
    """A cascade of products over shared vectors, learned by the log loss of every behaviour."""

    Config = NMTRConfig
    config: NMTRConfig
    shares_R: Tensor

    def __init__(self, config: NMTRConfig, graph: Graph) -> None:
        super().__init__(config, graph)
        n = len(graph.behaviors)
        self.batches = Pointwise(n=config.n_negatives, true_negatives=config.true_negatives, every_behavior=True)
        weights = config.weights or (1 / n,) * n
        if len(weights) != n:
            names = ", ".join(behavior.name for behavior in graph.behaviors)
            raise ConfigError(f"weights are {len(weights)} numbers, and behaviours are {n}: {names}")
        self.register_buffer("shares_R", torch.tensor(weights), persistent=False)
        self.users_UD = nn.Parameter(torch.zeros(graph.n_users, config.dim))
        self.items_ID = nn.Parameter(torch.zeros(graph.n_items, config.dim))
        self.h_RD = nn.Parameter(torch.zeros(n, config.dim))
        self.b_R = nn.Parameter(torch.zeros(n))

    def initialise(self, generator: torch.Generator) -> None:
        """Vectors: N(0, init_std^2). h: uniform, as LeCun's. b: 0."""
        nn.init.normal_(self.users_UD, std=self.config.init_std, generator=generator)
        nn.init.normal_(self.items_ID, std=self.config.init_std, generator=generator)
        bound = (3 / self.config.dim) ** 0.5
        nn.init.uniform_(self.h_RD, -bound, bound, generator=generator)

    @classmethod
    def memory(cls, config: NMTRConfig, graph: Graph) -> int:
        """Vectors, gradients and Adam's two moments, 4 bytes each; the edges of all behaviours while they are drawn."""
        n = len(graph.behaviors)
        return 4 * 4 * (graph.n_nodes * config.dim + n * (config.dim + 2)) + 40 * sum(map(len, graph.edges))

    def interactions(self, p_BD: Tensor, q_BD: Tensor) -> Tensor:
        """f_r, shape (B, R)."""
        return (p_BD * q_BD) @ self.h_RD.T

    def logits(self, p_BD: Tensor, q_BD: Tensor) -> Tensor:
        """The logit of each behaviour: f_r + b_r on top of the logit before it, shape (B, R)."""
        return (self.interactions(p_BD, q_BD) + self.b_R).cumsum(1)

    def encode(self) -> tuple[Tensor, Tensor]:
        return self.users_UD * self.h_RD.sum(0), self.items_ID

    def losses(self, batch: PointBatch) -> dict[str, Tensor]:
        """bce = sum_r lambda_r 1/B sum of log losses over the rows of behaviour r, B as ``mean`` says; and l2."""
        assert batch.behavior_B is not None
        p_BD, q_BD = embedding(batch.users_B, self.users_UD), embedding(batch.items_B, self.items_ID)
        logit_B = self.logits(p_BD, q_BD).gather(1, batch.behavior_B[:, None]).squeeze(1)
        loss_B = binary_cross_entropy_with_logits(logit_B, batch.labels_B, reduction="none")
        if self.config.mean == "behaviors":
            weight_R = self.shares_R / batch.behavior_B.bincount(minlength=len(self.shares_R)).clamp(min=1)
        else:
            weight_R = self.shares_R / len(loss_B)
        terms = {"bce": loss_B @ weight_R[batch.behavior_B]}
        return terms | ({"l2": self.config.l2 * l2_rows(p_BD, q_BD)} if self.config.l2 else {})


MODEL = NMTR
