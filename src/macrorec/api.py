"""What is a model, and what does it train on? Read this first.

Shape letters: B batch, U users, I items, E edges, D embedding, N negatives per positive.

A model file exports ``MODEL``, a subclass of one of four classes:

- ``Model``      anything that can score a pair; the general case.
- ``TwoTower``   ``encode() -> (U, I)`` vectors whose inner product *is* the score: it can retrieve from an index.
- ``ItemLinear`` a user's scores are a linear map of the user's row of items: new users cost nothing.
- ``Ranker``     scores an impression from features that count history by groups: it ranks what others retrieve.

It learns in one of two ways: by ``losses(batch)`` under ``macrorec.train.trainer.train``, with the batch kind that it
declares in ``batches``; or by ``solve(graph, generator)``, in closed form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from macrorec.graph.bipartite import Edges, Graph
from macrorec.graph.bipartite import take_rows as take_rows
from macrorec.graph.candidates import Candidates
from macrorec.graph.candidates import Floats as FloatArray
from macrorec.graph.columns import Features
from macrorec.graph.features import macro_of
from macrorec.graph.typed import AnyMacroGraph
from macrorec.ops.losses import bce
from macrorec.ops.reasons import Reason as Reason
from macrorec.ops.reasons import Reasons as Reasons


@dataclass(frozen=True, slots=True)
class Pairwise:
    """(user, positive item, n negative items) of the target behaviour. Makes ``PairBatch``."""

    n: int = 1
    """Negatives per positive, drawn uniformly over items."""
    true_negatives: bool = False
    """Redraw negatives until none is an edge of the target behaviour."""
    by: Literal["edge", "user"] = "edge"
    """``edge``: every edge once per epoch, in random order. ``user``: as many draws, a uniform user, then its item."""


@dataclass(frozen=True, slots=True)
class Pointwise:
    """(user, item, label) with n negatives, label 0, to every positive edge, label 1. Makes ``PointBatch``."""

    n: int = 1
    true_negatives: bool = False
    every_behavior: bool = False
    """The edges of every behaviour, not of the target alone; a true negative is no edge of its own behaviour."""


@dataclass(frozen=True, slots=True)
class UserRows:
    """Whole user rows of the target behaviour. Makes ``RowBatch``."""

    every_behavior: bool = False
    """Rows of every behaviour, of all users with any edge."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Rows of the log that carry a label, as they are. Makes ``PointBatch``."""


@dataclass(frozen=True, slots=True)
class Impressions:
    """Labelled impressions with the features that a ranker sees. Makes ``ImpressionBatch``."""


BatchKind = Pairwise | Pointwise | UserRows | Labelled | Impressions


@dataclass(frozen=True, slots=True, eq=False)
class PairBatch:
    """Positives and their negatives, int64 numbers."""

    users_B: Tensor
    items_B: Tensor
    negatives_BN: Tensor
    generator: torch.Generator
    """For dropout and the like: seeded by (seed, epoch, step), so that a resumed run draws the same."""


@dataclass(frozen=True, slots=True, eq=False)
class PointBatch:
    """Pairs with labels in [0, 1], float32."""

    users_B: Tensor
    items_B: Tensor
    labels_B: Tensor
    generator: torch.Generator
    behavior_B: Tensor | None = None
    """The behaviour of each row, int64, target last; None where there is one only."""


@dataclass(frozen=True, slots=True, eq=False)
class RowBatch:
    """Users and their items in CSR form: the items of users_B[b] are items_E[start_B[b] : start_B[b + 1]]."""

    users_B: Tensor
    start_B: Tensor
    items_E: Tensor
    generator: torch.Generator
    rows: tuple[tuple[Tensor, Tensor], ...] = ()
    """(start_B, items_E) of each behaviour, target last, where every behaviour was asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class ImpressionBatch:
    """Impressions with labels in [0, 1], float32."""

    features: Features
    labels_B: Tensor
    generator: torch.Generator


Batch = PairBatch | PointBatch | RowBatch | ImpressionBatch
Step = Callable[[Tensor], None]
"""``step(loss)``: zero the gradients, backward, one optimiser step."""

_SCORES_AT_ONCE = 1 << 22
"""Entries of the block of scores that ``Model.score`` holds."""
_IMPRESSIONS_AT_ONCE = 1 << 13
"""Impressions whose features a ranker holds while it scores many items for one user."""


class Model(nn.Module):
    """Scores pairs. Subclasses set ``Config``; every parameter is registered and reached by some loss term."""

    Config: ClassVar[type]
    """A frozen, keyword-only, slotted dataclass; every field has the paper's value and a docstring."""
    batches: BatchKind | None = None
    """The batch kind, on the class, or set in ``__init__`` where the config decides; None for closed form."""
    exceptions: ClassVar[dict[str, str]] = {}
    """Contract tests that this model is known to fail, by test name, each with its reason."""

    config: Any
    n_users: int
    n_items: int

    def __init__(self, config: Any, graph: Graph) -> None:
        super().__init__()
        self.config = config
        self.n_users = graph.n_users
        self.n_items = graph.n_items

    @classmethod
    def from_graph(cls, config: Any, graph: Graph, generator: torch.Generator) -> Self:
        """Build and initialise for ``graph``; all randomness comes from ``generator`` (CPU)."""
        model = cls(config, graph)
        model.initialise(generator)
        return model

    @classmethod
    def memory(cls, config: Any, graph: Graph) -> int:
        """Estimate, in bytes, of what building, training and scoring will hold at once, optimiser included."""
        return 0

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the initial value of every parameter from ``generator``."""

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Named scalar terms; the trainer minimises their sum."""
        raise NotImplementedError(f"{type(self).__name__} is not trained by batches")

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """One batch; models with several optimiser steps per batch override this."""
        terms = self.losses(batch)
        step(torch.stack(list(terms.values())).sum())
        return terms

    def optimizer(
        self, kind: str, *, lr: float, weight_decay: float, clip_norm: float | None
    ) -> torch.optim.Optimizer | None:
        """The model's own optimiser for these settings of training, where ``training_step`` steps it by itself, without
        ``step``; None, the default, for torch's. What a step puts off must be made up for at the latest in ``eval``."""
        return None

    def solve(self, graph: Graph, generator: torch.Generator) -> None:
        """Fit in closed form; called instead of training where ``batches`` is None."""

    def refresh(self, graph: Graph) -> None:
        """Take in, from a graph with newer edges, what counts at once without learning; by default nothing does."""

    def score(self, users_B: Tensor, items_B: Tensor) -> Tensor:
        """Scores of pairs, shape (B,). A model must define this, or ``score_all``, or both."""
        if type(self).score_all is Model.score_all:
            raise NotImplementedError(f"{type(self).__name__} defines neither score nor score_all")
        distinct, row_B = torch.unique(users_B, return_inverse=True)
        scores_B = torch.empty(len(users_B), device=users_B.device)
        block = max(1, _SCORES_AT_ONCE // max(self.n_items, 1))
        for first in range(0, len(distinct), block):
            scores = self.score_all(distinct[first : first + block])
            here = ((row_B >= first) & (row_B < first + block)).nonzero().squeeze(1)
            scores_B[here] = scores[row_B[here] - first, items_B[here]]
        return scores_B

    def score_all(self, users_B: Tensor) -> Tensor:
        """Scores of every item for each user, shape (B, I). The caller keeps B small."""
        pairs_u = users_B.repeat_interleave(self.n_items)
        pairs_i = torch.arange(self.n_items, device=users_B.device).repeat(len(users_B))
        return self.score(pairs_u, pairs_i).view(len(users_B), self.n_items)

    def score_some(self, users_B: Tensor, items_C: Tensor) -> Tensor:
        """Scores of C candidates for each user, shape (B, C)."""
        return self.score_all(users_B)[:, items_C]

    def fold_in(self, history: Edges) -> Tensor:
        """Scores (B, I) for B users outside train, given their target edges over this model's items."""
        raise NotImplementedError(f"{type(self).__name__} cannot score a user that it was not trained on")

    def contributions(self, user_items_H: Tensor, item: int) -> Tensor | None:
        """What each of a user's items adds to the score of ``item``, shape (H,), summing to it; None if no sum."""
        return None

    def edge_weights(self) -> tuple[Tensor, ...] | None:
        """Weight that the model gives to each edge, per behaviour (E_r,), in the order of ``graph.edges``; or None."""
        return None

    def clusters(self) -> tuple[Tensor, Tensor] | None:
        """How strongly each user prefers (U, K), and each item belongs to (I, K), each of K clusters; None if no such.

        No gradients. Larger is stronger within a row; what else the numbers mean, and whether rows sum to one, is the
        model's affair.
        """
        return None


class Ranker(Model):
    """Scores an impression from its ``Features``: what user and item have done until then, counted by groups.

    Keeps the macro graph; ``score`` reads its state of the moment. Scores are logits of the label.
    """

    batches: BatchKind | None = Impressions()
    macro: AnyMacroGraph

    def __init__(self, config: Any, graph: Graph) -> None:
        super().__init__(config, graph)
        self.macro = graph.macro or macro_of(graph)

    def logits(self, features: Features) -> Tensor:
        """Logits of B impressions, shape (B,)."""
        raise NotImplementedError

    def fused(self) -> Callable[[Candidates], FloatArray] | None:
        """``logits`` (B,) of one user with B items, as the model is now in evaluation mode, in one compiled loop: for a
        server, which asks often for a few hundred items. None, the default: ``logits`` will do."""
        return None

    def reasons(self, features: Features) -> Reasons | None:
        """Why the one impression in ``features`` scores as it does; None for a ranker that cannot tell."""
        return None

    def losses(self, batch: ImpressionBatch) -> dict[str, Tensor]:
        if self.batches is None:
            return super().losses(batch)
        return {"bce": bce(self.logits(batch.features), batch.labels_B)}

    def score(self, users_B: Tensor, items_B: Tensor) -> Tensor:
        features = self.macro.features(users_B.cpu().numpy(), items_B.cpu().numpy())
        return self.logits(features.to(users_B.device))

    def score_all(self, users_B: Tensor) -> Tensor:
        return self.score_some(users_B, torch.arange(self.n_items, device=users_B.device))

    def score_some(self, users_B: Tensor, items_C: Tensor) -> Tensor:
        scores_BC = torch.empty(len(users_B), len(items_C), device=items_C.device)
        for row, user in enumerate(users_B.tolist()):
            for first in range(0, len(items_C), _IMPRESSIONS_AT_ONCE):
                block = slice(first, first + _IMPRESSIONS_AT_ONCE)
                features = self.macro.candidates(user, items_C[block].cpu().numpy())
                scores_BC[row, block] = self.logits(features.to(items_C.device))
        return scores_BC

    def refresh(self, graph: Graph) -> None:
        self.macro = graph.macro or self.macro

    def fold_in(self, history: Edges) -> Tensor:
        """Scores (B, I) for new users with these items, of which the last in number counts as the latest."""
        items_I, device = torch.arange(self.n_items), next(chain(self.parameters(), self.buffers())).device
        everything = self.macro.candidates(-1, items_I.numpy())
        rows = []
        for start, stop in pairwise(history.start_U.tolist()):
            own = self.macro.visitor(history.item_E[start:stop].numpy(), history.weight_E[start:stop].numpy())
            features = replace(everything, **{name: value.expand(self.n_items, -1) for name, value in own.items()})
            blocks = (features.take(rows_B).to(device) for rows_B in torch.split(items_I, _IMPRESSIONS_AT_ONCE))
            rows.append(torch.cat([self.logits(block) for block in blocks]))
        return torch.stack(rows) if rows else torch.zeros(0, self.n_items)


class TwoTower(Model):
    """A model whose score is the inner product of a user vector and an item vector."""

    def encode(self) -> tuple[Tensor, Tensor]:
        """All user vectors (U, D) and all item vectors (I, D)."""
        raise NotImplementedError

    def score(self, users_B: Tensor, items_B: Tensor) -> Tensor:
        users_UD, items_ID = self.encode()
        return (users_UD[users_B] * items_ID[items_B]).sum(-1)

    def score_all(self, users_B: Tensor) -> Tensor:
        users_UD, items_ID = self.encode()
        return users_UD[users_B] @ items_ID.T

    def fold_in(self, history: Edges) -> Tensor:
        users_BD = self.fold_in_vectors(history)
        return users_BD @ self.encode()[1].T

    def fold_in_vectors(self, history: Edges) -> Tensor:
        """User vectors (B, D) for new users; zero for one without items."""
        return self.folding()(history)

    def folding(self) -> Callable[[Edges], Tensor]:
        """``fold_in_vectors`` as the model is now, with all done that no history changes: a server asks it often.

        A model overrides this, or ``fold_in_vectors`` where nothing can be done ahead. By default, implicit-feedback
        ridge regression on the frozen item vectors (Hu, Koren & Volinsky 2008, eq. 4), for user items V_h (H, D):
        (V'V + a V_h'V_h + l I)^-1 (1 + a) V_h' 1, with a = .1 I / H and l ten times the mean eigenvalue of V'V. So
        strong a ridge because item vectors were not made for regression: with BPR's on MovieLens 100K, users folded in
        reach NDCG@10 .52, with a tenth of the mean eigenvalue .32.
        """
        if type(self).fold_in_vectors is not TwoTower.fold_in_vectors:
            return self.fold_in_vectors
        items_ID = self.encode()[1].detach()
        gram_DD = items_ID.T @ items_ID
        eye_DD = torch.eye(len(gram_DD), device=gram_DD.device)
        ridge_DD = (10 * gram_DD.diagonal().mean() + torch.finfo(torch.float32).tiny) * eye_DD

        def fold(history: Edges) -> Tensor:
            vectors_BD = items_ID.new_zeros(len(history.start_U) - 1, items_ID.shape[1])
            for user, (start, stop) in enumerate(pairwise(history.start_U.tolist())):
                own_HD = items_ID[history.item_E[start:stop].to(items_ID.device)]
                alpha = 0.1 * self.n_items / max(stop - start, 1)
                system_DD = gram_DD + alpha * own_HD.T @ own_HD + ridge_DD
                vectors_BD[user] = torch.linalg.solve(system_DD, (1 + alpha) * own_HD.sum(0))
            return vectors_BD

        return fold


class ItemLinear(Model):
    """score(u, i) = sum over u's train items h of S[h, i]. Keeps the train rows, which stand in the graph."""

    start_U: Tensor
    item_E: Tensor

    def __init__(self, config: Any, graph: Graph) -> None:
        super().__init__(config, graph)
        self.register_buffer("start_U", graph.target.start_U.clone(), persistent=False)
        self.register_buffer("item_E", graph.target.item_E.clone(), persistent=False)

    def apply_rows(self, start_B: Tensor, items_E: Tensor) -> Tensor:
        """Scores (B, I) of users whose items are items_E[start_B[b] : start_B[b + 1]]."""
        raise NotImplementedError

    def similar(self, items_H: Tensor, items_B: Tensor) -> Tensor:
        """The entries S[h, i] as a block (H, B)."""
        raise NotImplementedError

    def rows(self, users_B: Tensor) -> tuple[Tensor, Tensor]:
        """The train rows of ``users_B`` in CSR form: start_B (B + 1,) and items_E."""
        return take_rows(self.start_U, self.item_E, users_B)

    def score_all(self, users_B: Tensor) -> Tensor:
        return self.apply_rows(*self.rows(users_B))

    def fold_in(self, history: Edges) -> Tensor:
        device = self.start_U.device
        return self.apply_rows(history.start_U.to(device), history.item_E.to(device))

    def contributions(self, user_items_H: Tensor, item: int) -> Tensor:
        return self.similar(user_items_H, torch.tensor([item], device=user_items_H.device)).squeeze(1)
