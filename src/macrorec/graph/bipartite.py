"""Who did what in train? One unique, sorted edge array per behaviour: all that a model may know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor

from macrorec.data.log import Behavior, Interactions, Split

if TYPE_CHECKING:
    from macrorec.graph.typed import AnyMacroGraph


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """Unique (user, item) pairs of one behaviour, sorted by user, then item. All tensors live on the CPU."""

    user_E: Tensor
    """User numbers, int64, shape (E,)."""
    item_E: Tensor
    """Item numbers, int64, shape (E,)."""
    weight_E: Tensor
    """Sum over the edge's events of event weight x behaviour weight, float32, shape (E,)."""
    count_E: Tensor
    """Number of events behind the edge, int64, shape (E,)."""
    start_U: Tensor
    """Row pointers, int64, shape (U + 1,): the edges of user u are start_U[u] : start_U[u + 1]."""

    def __len__(self) -> int:
        return len(self.user_E)

    def csr(self, n_items: int, *, weighted: bool = False) -> sp.csr_matrix:
        """The (U, I) matrix, float32, of ones or of ``weight_E``; indices are sorted, none is repeated."""
        values = self.weight_E.numpy() if weighted else np.ones(len(self), dtype=np.float32)
        shape = (len(self.start_U) - 1, n_items)
        return sp.csr_matrix((values, self.item_E.numpy().astype(np.int32), self.start_U.numpy()), shape=shape)

    def degrees(self, n_items: int) -> tuple[Tensor, Tensor]:
        """Edges per user (U,) and per item (I,), int64."""
        return self.start_U.diff(), torch.bincount(self.item_E, minlength=n_items)


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A bipartite multi-behaviour graph: one ``Edges`` per behaviour, target last."""

    n_users: int
    n_items: int
    behaviors: tuple[Behavior, ...]
    edges: tuple[Edges, ...]
    macro: AnyMacroGraph | None = None
    """The macro graph of the same log, where a ranker asked for it."""
    labelled: Interactions | None = None
    """The rows behind the edges, where they carry labels: for models that count likes and dislikes."""

    @property
    def target(self) -> Edges:
        """The edges of the target behaviour."""
        return self.edges[-1]

    @property
    def n_nodes(self) -> int:
        """U + I; in a joint numbering item i is node n_users + i."""
        return self.n_users + self.n_items

    def union(self) -> Edges:
        """Pairs with an edge of any behaviour, each once: weights add up, counts are numbers of behaviours."""
        user, item, weight = (
            torch.cat([getattr(edges, name) for edges in self.edges]).numpy()
            for name in ("user_E", "item_E", "weight_E")
        )
        return edges_of(user, item, self.n_users, self.n_items, weight)

    def masked(self) -> sp.csr_matrix:
        """(U, I) pattern of all edges whose behaviour's mask policy leaves them out of rankings; sorted indices."""
        union = sp.csr_matrix((self.n_users, self.n_items), dtype=np.float32)
        for behavior, edges in zip(self.behaviors, self.edges, strict=True):
            if behavior.mask:
                union = union + edges.csr(self.n_items)
        union.sort_indices()
        return union


def build(train: Interactions) -> Graph:
    """The graph of ``train``: per behaviour, events of one pair become one edge."""
    edges = tuple(
        edges_of(rows.user, rows.item, len(train.users), len(train.items), rows.weight, scale=behavior.weight)
        for number, behavior in enumerate(train.behaviors)
        for rows in (train.take(train.behavior == number) if len(train.behaviors) > 1 else train,)
    )
    labelled = None if train.label is None else train
    return Graph(len(train.users), len(train.items), train.behaviors, edges, labelled=labelled)


def from_split(split: Split) -> Graph:
    """The graph of ``split.train``, the only part that a graph is ever built from."""
    return build(split.train)


def edges_of(
    user: npt.NDArray[Any],
    item: npt.NDArray[Any],
    n_users: int,
    n_items: int,
    weight: npt.NDArray[Any] | None = None,
    *,
    scale: float = 1.0,
) -> Edges:
    """Unique sorted edges of event arrays ``user`` and ``item``, shape (n,); ``weight`` defaults to one per event.

    Without weights nothing but the edges themselves is held at any moment, and a key of eight bytes per event.
    """
    key = user.astype(np.int64)
    key *= n_items
    key += item
    order = None if weight is None else np.argsort(key, kind="stable")
    if order is None:
        key.sort()
    else:
        key = key[order]
    is_first = np.ones(len(key), dtype=bool)
    np.not_equal(key[1:], key[:-1], out=is_first[1:])
    first = np.flatnonzero(is_first)
    count = np.empty(len(first), dtype=np.int64)
    np.subtract(first[1:], first[:-1], out=count[:-1])
    count[-1:] = len(key) - first[-1:]
    if weight is None or order is None:
        total = count.astype(np.float32) if scale == 1 else (count * scale).astype(np.float32)
    else:
        events = weight[order].astype(np.float64)
        total = ((np.add.reduceat(events, first) if len(key) else np.zeros(0)) * scale).astype(np.float32)
    del first, order
    item_E = key[is_first]
    del key, is_first
    start_U = np.searchsorted(item_E, np.arange(n_users + 1) * n_items)
    np.remainder(item_E, max(n_items, 1), out=item_E)
    return Edges(
        user_E=torch.from_numpy(np.repeat(np.arange(n_users), np.diff(start_U))),
        item_E=torch.from_numpy(item_E),
        weight_E=torch.from_numpy(total),
        count_E=torch.from_numpy(count),
        start_U=torch.from_numpy(start_U),
    )


def take_rows(start_U: Tensor, item_E: Tensor, users_B: Tensor) -> tuple[Tensor, Tensor]:
    """The CSR rows ``users_B`` of (start_U, item_E): new row pointers (B + 1,) and items."""
    begin, size = start_U[users_B], start_U[users_B + 1] - start_U[users_B]
    start_B = torch.zeros(len(users_B) + 1, dtype=start_U.dtype, device=start_U.device)
    torch.cumsum(size, 0, out=start_B[1:])
    offset = (begin - start_B[:-1]).repeat_interleave(size)
    return start_B, item_E[offset + torch.arange(int(start_B[-1]), device=start_U.device)]
