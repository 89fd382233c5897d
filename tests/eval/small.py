"""Small splits, models that answer a given table, and the slow loops that judge the fast code."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from macrorec.api import Model, TwoTower
from macrorec.data.log import Behavior, Interactions, Split
from macrorec.data.vocab import Vocab
from macrorec.graph.bipartite import Graph, edges_of

BUY = (Behavior(name="buy"),)
FUNNEL = (Behavior(name="view", role="auxiliary", mask=False), Behavior(name="cart", role="auxiliary"), *BUY)


def empty_graph(n_users, n_items):
    none = np.zeros(0, dtype=np.int64)
    return Graph(n_users, n_items, BUY, (edges_of(none, none, n_users, n_items),))


class Table(Model):
    """Scores are a table (U, I)."""

    def __init__(self, table) -> None:
        super().__init__(None, empty_graph(*table.shape))
        self.register_buffer("table", torch.as_tensor(np.array(table), dtype=torch.float32))

    def score(self, users_B: Tensor, items_B: Tensor) -> Tensor:
        return self.table[users_B, items_B]

    def score_all(self, users_B: Tensor) -> Tensor:
        return self.table[users_B]


class Vectors(TwoTower):
    """Scores are inner products of given vectors; counts how often it was encoded."""

    def __init__(self, users_UD, items_ID) -> None:
        super().__init__(None, empty_graph(len(users_UD), len(items_ID)))
        self.u = torch.nn.Parameter(torch.as_tensor(users_UD, dtype=torch.float32))
        self.v = torch.nn.Parameter(torch.as_tensor(items_ID, dtype=torch.float32))
        self.encoded = 0

    def encode(self):
        self.encoded += 1
        return self.u, self.v


def interactions(n_users, n_items, user, item, behavior=None, behaviors=BUY, label=None):
    user, item = np.asarray(user, dtype=np.int32), np.asarray(item, dtype=np.int32)
    kinds = np.full(len(user), len(behaviors) - 1) if behavior is None else np.asarray(behavior)
    vocabs = Vocab([f"u{n}" for n in range(n_users)]), Vocab([f"i{n}" for n in range(n_items)])
    labels = None if label is None else np.asarray(label, dtype=np.float32)
    return Interactions(*vocabs, behaviors, user, item, kinds.astype(np.int8), label=labels)


def random_split(seed=0, n_users=40, n_items=30, rows=500, behaviors=FUNNEL):
    """Rows over all behaviours with repeats; the last five users have no row in test."""
    rng = np.random.default_rng(seed)
    log = interactions(
        n_users, n_items, rng.integers(n_users, size=rows), rng.integers(n_items, size=rows),
        rng.integers(len(behaviors), size=rows), behaviors,
    )  # fmt: skip
    where = rng.choice(3, size=rows, p=[0.5, 0.2, 0.3])
    where[(log.user >= n_users - 5) & (where == 2)] = 0
    return Split(*(log.take(where == n) for n in range(3)), protocol={})


def slow_top_k(scores_BI, k, masked=None, candidates=None):
    """Sort every row in Python by (-score, item)."""
    items = np.full((len(scores_BI), k), -1)
    best = np.full((len(scores_BI), k), -np.inf, dtype=np.float32)
    for b, row in enumerate(scores_BI):
        known = set() if masked is None else set(masked[b].indices.tolist())
        pool = range(len(row)) if candidates is None else candidates
        left = [(-float(row[i]), i) for i in set(pool) if i not in known and row[i] != -np.inf]
        for rank, (negated, item) in enumerate(sorted(left)[:k]):
            items[b, rank], best[b, rank] = item, -negated
    return items, best


def random_mask(rng, n_users, n_items, density):
    return sp.csr_matrix((rng.random((n_users, n_items)) < density).astype(np.float32))
