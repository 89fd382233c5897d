"""How long does MacGNN take to score 200 candidates of one user, and does it matter how much the user has done?

Run as ``python -m benchmarks.macgnn_score [requests]``: a macro graph of 6,000 users, 4,000 items, 20 + 18 groups and a
million events, and three more users with 10, 1,000 and 1,000,000 events. A request reads the features of 200 random
items and computes their logits, on one thread, state in memory. Baseline: the same logits by the equations as the
authors write them, from the same features. Latencies of the three users are taken in turns.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.line import emit
from benchmarks.macgnn_train import plain_logits
from macrorec.data.log import Behavior
from macrorec.graph.bipartite import Graph, edges_of
from macrorec.graph.groups import Groups
from macrorec.graph.macro import MacroGraph
from macrorec.models.macgnn import MODEL, MacGNN

N_USERS, N_ITEMS, N_EVENTS, P, Q, N_CANDIDATES = 6_000, 4_000, 1_000_000, 20, 18, 200
HISTORIES = (10, 1_000, 1_000_000)
REQUESTS = 1_000


def graph() -> Graph:
    """Skewed events of 6,000 users; then each of three users with as many events as ``HISTORIES`` has."""
    random = np.random.default_rng(0)
    user = (N_USERS * random.random(N_EVENTS) ** 1.7).astype(np.int64)
    heavy = np.repeat(N_USERS + np.arange(len(HISTORIES)), HISTORIES)
    user = np.concatenate([user, heavy])
    item = (N_ITEMS * random.random(len(user)) ** 2).astype(np.int64)
    n_users = N_USERS + len(HISTORIES)
    groups = (Groups(np.arange(n_users, dtype=np.int32) % P, P), Groups(np.arange(N_ITEMS, dtype=np.int32) % Q, Q))
    none = np.empty(0, dtype=np.int64)
    edges = edges_of(none, none, n_users, N_ITEMS)
    return Graph(n_users, N_ITEMS, (Behavior(name="click"),), (edges,), MacroGraph(*groups, user, item))


def trained(shape: Graph) -> MacGNN:
    """A model whose running statistics have seen one batch."""
    model = MODEL.from_graph(MODEL.Config(), shape, torch.Generator().manual_seed(0))
    assert isinstance(model, MacGNN)
    random = np.random.default_rng(1)
    users, items = random.integers(0, N_USERS, 4096), random.integers(0, N_ITEMS, 4096)
    model.logits(model.macro.features(users, items))
    return model.eval()


def took(request: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    request()
    return 1e3 * (time.perf_counter() - start)


def turn(model: MacGNN, user: int, items: npt.NDArray[np.int64]) -> list[float]:
    """Latencies of an everyday user, of its features alone, of the three heavy users, and of the baseline."""
    macro, features = model.macro, model.macro.candidates(user, items)
    requests = [
        partial(lambda user: model.logits(macro.candidates(user, items)), number)
        for number in (user, *range(N_USERS, N_USERS + len(HISTORIES)))
    ]
    everyday, *heavy = (took(request) for request in requests)
    alone = took(lambda: macro.candidates(user, items))
    return [everyday, alone, *heavy, took(lambda: plain_logits(model, features))]


def main() -> None:
    """Measure and print the line."""
    n_requests = int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS
    torch.set_num_threads(1)
    model = trained(graph())
    random = np.random.default_rng(2)
    with torch.inference_mode():
        rows = [
            turn(model, int(random.integers(0, N_USERS)), random.choice(N_ITEMS, N_CANDIDATES, replace=False))
            for _ in range(n_requests + 20)
        ]
    everyday, features_only, *of_heavy, plain = np.array(rows[20:]).T
    p50, p99 = np.percentile(everyday, [50, 99])
    heavy = [float(np.median(column)) for column in of_heavy]
    emit(
        name="macgnn_score",
        value=round(float(p50), 3),
        unit="ms, p50 of 200 candidates",
        baseline={
            "name": "the equations as the authors write them, PyTorch",
            "value": round(float(np.median(plain)), 3),
        },
        ratio=round(float(np.median(plain) / p50), 2),
        p99=round(float(p99), 3),
        features_p50=round(float(np.median(features_only)), 3),
        by_events={str(n): round(value, 3) for n, value in zip(HISTORIES, heavy, strict=True)},
        spread=round(max(heavy) / min(heavy) - 1, 3),
        requests=n_requests,
        threads=1,
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()
