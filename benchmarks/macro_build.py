"""How long does the macro graph of a million ratings take, with what 200,000 impressions see of it? On 4 threads.

Run as ``python -m benchmarks.macro_build``. 6,000 users x 4,000 items, groups given (k-means is part of
``benchmarks.features``): rows of two hops on both sides, recents, features as tensors. Baseline: the same numbers by
products of scipy's sparse matrices and a Python loop over events for recents. ``replay`` is the other kind of features:
the last 200,000 ratings come one by one, each impression sees the state before its own.
"""

from __future__ import annotations

import os
from collections import deque

import numpy as np
import scipy.sparse as sp
import torch

from benchmarks.line import emit
from benchmarks.macro_add import Events, cut, market
from benchmarks.turns import timed
from benchmarks.waiting import asleep
from macrorec.graph.columns import Features
from macrorec.graph.groups import Groups
from macrorec.graph.macro import MacroGraph

EVENTS, SAMPLES, RECENTS, THREADS = 1_000_000, 200_000, 20, 4


def plain(users: Groups, items: Groups, events: Events, seen: Events) -> list[torch.Tensor]:
    """Hops and recents of the impressions ``seen``, in the order of ``Features``."""
    user_E, item_E, weight_E, _ = events
    n_users, n_items = len(users), len(items)
    r_UI = sp.csr_matrix((weight_E.astype(np.float64), (user_E, item_E)), (n_users, n_items))
    c_UP = np.eye(users.n)[users.of_N]
    c_IQ = np.eye(items.n)[items.of_N]
    a_u1, a_i1 = r_UI @ c_IQ, r_UI.T @ c_UP
    a_u2, a_i2 = r_UI @ a_i1, r_UI.T @ a_u1
    latest: list[list[deque[int]]] = [[deque(maxlen=RECENTS) for _ in range(n)] for n in (n_users, n_items)]
    for user, item in zip(user_E.tolist(), item_E.tolist(), strict=True):
        latest[0][user].appendleft(item)
        latest[1][item].appendleft(user)
    recent = [np.array([[*row, *[-1] * (RECENTS - len(row))] for row in side]) for side in latest]
    user_B, item_B = seen
    rows = [a_u1[user_B], a_u2[user_B], a_i1[item_B], a_i2[item_B]]
    return [torch.from_numpy(row.astype(np.float32)) for row in rows] + [
        torch.from_numpy(side[number]) for side, number in zip(recent, seen, strict=True)
    ]


def fields(features: Features) -> list[torch.Tensor]:
    """What ``plain`` computes."""
    rows = [features.user_hop1_BQ, features.user_hop2_BP, features.item_hop1_BP, features.item_hop2_BQ]
    return [*rows, features.user_recent_BR, features.item_recent_BR]


def main() -> None:
    """Measure and print the line."""
    asleep("benchmarks.macro_build")
    torch.set_num_threads(THREADS)
    users, items, events = market(6_000, 4_000, EVENTS)
    history, later = cut(events, 0, EVENTS - SAMPLES), cut(events, EVENTS - SAMPLES, EVENTS)
    random = np.random.default_rng(1)
    seen: Events = [random.integers(0, n, SAMPLES) for n in (len(users), len(items))]

    def ours() -> list[torch.Tensor]:
        return fields(MacroGraph(users, items, *events, recents=RECENTS).features(*seen))

    for got, want in zip(ours(), plain(users, items, events, seen), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)
    graph = MacroGraph(users, items, *events)
    spare = iter([MacroGraph(users, items, *history) for _ in range(8)])
    user_E, item_E, weight_E, time_E = later
    took, build, read, replay = timed(
        ours,
        lambda: MacroGraph(users, items, *events),
        lambda: graph.features(*seen),
        lambda: next(spare).replay(user_E, item_E, weight_E, time_E, user_E, item_E, np.arange(SAMPLES)),
    )
    (scipy_,) = timed(lambda: plain(users, items, events, seen), repeats=3)
    emit(
        name="macro_build",
        value=round(took.wall, 3),
        unit="s",
        baseline={"name": "scipy's sparse products, a Python loop for recents", "value": round(scipy_.wall, 3)},
        ratio=round(scipy_.wall / took.wall, 1),
        cpu_seconds=round(took.cpu, 3),
        build=round(build.wall, 3),
        features=round(read.wall, 3),
        replay=round(replay.wall, 3),
        replay_cpu_seconds=round(replay.cpu, 3),
        threads=THREADS,
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()
