"""What speaks for a pair of user and item? The pair's own edges, and what like edges led to before.

Counts never see the pair that they speak for: the user's own edges of the item are left out of the item's counts, and
so is a purchase that is held out, wherever it would have been counted. So a pair that was bought looks as it did
before it was, and a table of train pairs is what a table of tomorrow's pairs will be.

Shape letters: B users, U all users, I items, R behaviours (target last), C pairs, F columns, K neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor

from macrorec.graph.bipartite import Edges, Graph
from macrorec.ops.choices import pointers
from macrorec.ops.gather import view
from macrorec.ops.linear import cosine_neighbors, normalized, truncated_svd
from macrorec.ops.threads import in_blocks

Array = npt.NDArray[Any]

PAIRS_AT_ONCE = 1 << 17
"""Pairs whose columns are held at once where many are asked for."""
_CONSTANT = 1e-4  # the deviation of a column below which it counts as constant

KINDS = {
    "edge": "1 if the user has met the item by this behaviour",
    "rate": "ln of the share of the item's other users by this behaviour who bought it, relative to the mean share",
    "degree": "ln(1 + other users who met the item by this behaviour)",
    "habit": "share of the user's purchases that they had met by this behaviour",
    "choice": "ln(1 + items met by this behaviour and not bought)",
    "led": "cosine of the item's buyers with those who met the user's other items by it: root of the sum",
    "led-share": "share of those who met the user's other item by it who bought the item: root of the sum, and largest",
    "alike": "cosine of the item's users with those of the user's other items of this behaviour: mean and largest",
    "alike-bought": "the same with the items that the user bought, for users by any behaviour, too: sum and largest",
    "bought": "ln(1 + buyers of the item)",
    "purchases": "ln(1 + items that the user bought)",
    "together": "cosine of the item's buyers with those of the user's purchases: root of the sum, and largest",
    "together-share": "share of the buyers of the user's purchase who bought the item: root of the sum, and largest",
    "profile": "cosine of singular vectors: the item's with each purchase, summed, and with the sum of what was met",
}
"""What the columns of a table are; the last five for the target behaviour, the others for each auxiliary one."""

_PER_AUXILIARY = ("edge", "rate", "degree", "habit", "choice", "led", "led-share", "led-share", "alike", "alike")
_OF_TARGET = ("bought", "purchases", "together", "together", "together-share", "together-share", "profile", "profile")


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The items of each user by each behaviour, target last: users start_RU[r, u] : start_RU[r, u + 1] of item_E."""

    start_RU: Array
    item_E: Array

    @classmethod
    def of(cls, edges: tuple[Edges, ...]) -> Rows:
        """Those of all users."""
        first = np.cumsum([0, *map(len, edges[:-1])])
        start_RU = np.stack([view(e.start_U) + at for e, at in zip(edges, first, strict=True)])
        return cls(start_RU, np.concatenate([view(e.item_E) for e in edges]).astype(np.int32))

    @classmethod
    def of_target(cls, edges: Edges, n_behaviors: int) -> Rows:
        """Those of users of whom only their target edges are known."""
        start_RU = np.zeros((n_behaviors, len(edges.start_U)), np.int64)
        start_RU[-1] = view(edges.start_U)
        return cls(start_RU, view(edges.item_E).astype(np.int32))


class Evidence:
    """Item statistics of a graph, from which tables of pairs are made."""

    def __init__(self, graph: Graph, *, prior: float, shrinkage: float, n_neighbors: int, dim: int) -> None:
        """``prior`` counts beside the users of an item, ``shrinkage`` in the denominators of cosines.

        Of the similarities within an auxiliary behaviour the ``n_neighbors`` largest of each item count. ``dim`` is how
        many singular vectors of the auxiliary behaviours place an item.
        """
        self.prior, self.shrinkage = prior, shrinkage
        n_auxiliary = len(graph.edges) - 1
        n_near = n_auxiliary + (n_auxiliary > 1)
        self.kinds = _PER_AUXILIARY * n_auxiliary + ("alike-bought",) * (2 * n_near) + _OF_TARGET
        n_items = graph.n_items
        patterns = [edges.csr(n_items) for edges in graph.edges]
        target, auxiliary = patterns[-1], patterns[:-1]
        self.degree = np.stack([np.bincount(m.indices, minlength=n_items) for m in patterns]).astype(np.float64)
        both = [np.bincount(m.multiply(target).tocsr().indices, minlength=n_items) for m in auxiliary]
        self.both = np.array(both, np.float64).reshape(len(auxiliary), n_items)
        self.mean = (self.both.sum(1) + 1) / (self.degree[:-1].sum(1) + 10)
        buyers = self.both + prior * self.mean[:, None]
        rate = np.log(buyers / (self.degree[:-1] + prior) / self.mean[:, None])
        columns = [column for pair in zip(rate, np.log1p(self.degree[:-1]), strict=True) for column in pair]
        self.fixed = np.stack([*columns, np.log1p(self.degree[-1])], 1).astype(np.float32)
        led = [_led(m, target, self.degree[r], self.degree[-1], shrinkage) for r, m in enumerate(patterns)]
        first = np.cumsum([0, *(len(values) for _, _, _, values in led[:-1])])
        self.led_start = np.stack([start + at for (start, *_), at in zip(led, first, strict=True)])
        self.led_item, self.led_count, self.led_value = (np.concatenate([part[n] for part in led]) for n in (1, 2, 3))
        k = min(n_neighbors, n_items)
        self.near_item = np.zeros((n_near, n_items, k), np.int32)
        self.near_value = np.zeros((n_near, n_items, k), np.float32)
        union = any_of(auxiliary, target.shape)
        self.like = _directions(union, dim)
        for r, pattern in enumerate([*auxiliary, union][:n_near]):
            columns_of = pattern.T.tocsr()
            item_IK, value_IK = cosine_neighbors(columns_of, columns_of, k, shrinkage, same=True)
            self.near_item[r], self.near_value[r] = view(item_IK), view(value_IK)

    @property
    def alike(self) -> tuple[Array, Array]:
        """The most similar items of each, by users of any auxiliary behaviour, and their cosines, (I, K); or (I, 0)."""
        if len(self.near_item):
            return self.near_item[-1], self.near_value[-1]
        return np.zeros((len(self.fixed), 0), np.int32), np.zeros((len(self.fixed), 0), np.float32)

    @staticmethod
    def n_bytes(graph: Graph, n_neighbors: int, dim: int) -> int:
        """An upper bound of what an instance holds."""
        degrees = [view(edges.start_U.diff()) for edges in graph.edges]
        pairs = sum(int(degree @ degrees[-1]) for degree in degrees)
        of_item = (8 * n_neighbors + 60) * (len(graph.edges) + 1) + 24 * dim
        return 12 * pairs + graph.n_items * of_item + 16 * dim * graph.n_users + 8 * sum(map(len, graph.edges))

    def table(self, rows: Rows, users_B: Tensor, held_B: Tensor | None, start_B: Tensor, items_C: Tensor) -> Tensor:
        """Columns (C, F), float32, of the pairs of user users_B[b] with items_C[start_B[b] : start_B[b + 1]].

        ``held_B`` is a purchase of each user that is taken as not yet made; None for none, as is -1 for one user.
        Counted on the CPU, returned where ``items_C`` is.
        """
        from macrorec.ops import evidence_kernels

        collect: Callable[..., None] = evidence_kernels.collect
        out = np.empty((len(items_C), len(self.kinds)), np.float32)
        held_B = torch.full_like(users_B, -1) if held_B is None else held_B
        given = [view(tensor.cpu()) for tensor in (users_B, held_B, start_B, items_C)]
        counts = (self.degree, self.both, self.mean, self.fixed)
        led = (self.led_start, self.led_item, self.led_count, self.led_value)
        near = (self.near_item, self.near_value, self.like)

        def block(lo: int, hi: int) -> None:
            collect(*given, rows.start_RU, rows.item_E, *counts, *led, *near, self.prior, self.shrinkage, out, lo, hi)

        in_blocks(block, given[2] + 2000 * np.arange(len(given[2])), 40)
        return torch.from_numpy(out).to(items_C.device)

    def of_pairs(self, rows: Rows, users_B: Tensor, items_B: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Places (C,) among the pairs and the columns (C, F) of the pairs there, until every pair had its turn.

        They go by user, since what a user's own items say is collected once per user.
        """
        distinct_U, row_B = torch.unique(users_B, return_inverse=True)
        for some_C in torch.split(torch.argsort(row_B, stable=True), PAIRS_AT_ONCE) if len(users_B) else ():
            begin, end = (int(row_B[some_C[n]]) for n in (0, -1))
            start_U = pointers(row_B[some_C] - begin, end - begin + 1)
            yield some_C, self.table(rows, distinct_U[begin : end + 1], None, start_U, items_B[some_C])

    def of_blocks(self, rows: Rows, users_B: Tensor, items_C: Tensor) -> Iterator[Tensor]:
        """Columns (n C, F) of every one of the items with each of n users, for some users after the other."""
        for some_B in torch.split(users_B, max(1, PAIRS_AT_ONCE // max(len(items_C), 1))):
            start_B = torch.arange(len(some_B) + 1, device=users_B.device) * len(items_C)
            yield self.table(rows, some_B, None, start_B, items_C.repeat(len(some_B)))

    def moments(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Mean (F,) and deviation (F,), 1 of a constant, of each column over all pairs with any edge."""
        n = max(graph.n_items, 1)
        pair_Q = torch.unique(torch.cat([edges.user_E * n + edges.item_E for edges in graph.edges]))
        total_F, square_F = torch.zeros(2, len(self.kinds), dtype=torch.float64)
        for _, x_CF in self.of_pairs(Rows.of(graph.edges), pair_Q // n, pair_Q % n):
            total_F, square_F = total_F + x_CF.double().sum(0), square_F + x_CF.double().square().sum(0)
        mean_F = total_F / max(len(pair_Q), 1)
        deviation_F = (square_F / max(len(pair_Q), 1) - mean_F.square()).clamp(min=0).sqrt()
        return mean_F.float(), torch.where(deviation_F > _CONSTANT, deviation_F, 1).float()


def any_of(patterns: list[sp.csr_matrix], shape: tuple[int, int]) -> sp.csr_matrix:
    """One where any of the patterns of this shape has one."""
    return (sum(patterns, sp.csr_matrix(shape, dtype=np.float32)) > 0).astype(np.float32)


def _directions(met: sp.csr_matrix, dim: int) -> Array:
    """Of each item the direction, of length 1, of its row of Q diag(s): P diag(s) Q^T ~ D_u^-1/2 met D_i^-1/2."""
    if not met.nnz:
        return np.zeros((met.shape[1], 0), np.float32)
    _, s_D, item_ID = truncated_svd(normalized(met), dim, torch.Generator().manual_seed(0))
    like_ID = view(item_ID * s_D)
    length_I = np.linalg.norm(like_ID, axis=1, keepdims=True)
    return (like_ID / np.where(length_I > 1e-9, length_I, np.inf)).astype(np.float32)


def _led(
    met: sp.csr_matrix, bought: sp.csr_matrix, degree_I: Array, buyers_I: Array, shrinkage: float
) -> tuple[Array, Array, Array, Array]:
    """Per item j the items i != j: users who met j and bought i, and their cosine; row pointers, i, counts, cosines."""
    product = (met.T @ bought).tocsr()
    product.setdiag(0)
    product.eliminate_zeros()
    product.sort_indices()
    j = np.repeat(np.arange(len(degree_I)), np.diff(product.indptr))
    value = product.data / (np.sqrt(degree_I[j] * buyers_I[product.indices]) + shrinkage)
    return product.indptr.astype(np.int64), product.indices.astype(np.int32), product.data, value.astype(np.float32)
