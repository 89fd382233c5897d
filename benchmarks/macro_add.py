"""How many events does the macro graph count per second, on one thread, after a million? And does reading stay flat?

Run as ``python -m benchmarks.macro_add``. The value is a batch of 200,000 events on a market of 6,000 x 4,000; ``one``
is the same by one event per call, ``wide`` a batch on a market of a million users and 100,000 items; ``candidates_us``
the features of 200 candidates for one user, by the number of the user's events. Baseline: the same law event by event
in Python, rows as NumPy arrays, histories as lists.
"""

from __future__ import annotations

import os
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.line import emit
from benchmarks.turns import timed
from macrorec.graph.groups import Groups
from macrorec.graph.macro import MacroGraph

BEFORE, AFTER, PLAIN, ONE = 1_000_000, 200_000, 2_000, 20_000
USER_GROUPS, ITEM_GROUPS, CANDIDATES = 20, 18, 200
Events = list[npt.NDArray[Any]]


def market(n_users: int, n_items: int, n_events: int, seed: int = 0) -> tuple[Groups, Groups, Events]:
    """Events in order of time: users of lognormal activity, items of Zipf-like popularity."""
    random = np.random.default_rng(seed)
    activity = random.lognormal(sigma=1.0, size=n_users)
    popularity = random.permutation(1 / (20 + np.arange(n_items)))
    user_E = random.choice(n_users, n_events, p=activity / activity.sum())
    item_E = random.choice(n_items, n_events, p=popularity / popularity.sum())
    users = Groups(random.integers(0, USER_GROUPS, n_users).astype(np.int32), USER_GROUPS)
    items = Groups(random.integers(0, ITEM_GROUPS, n_items).astype(np.int32), ITEM_GROUPS)
    return users, items, [user_E, item_E, np.ones(n_events, np.float32), np.arange(n_events)]


def cut(events: Events, first: int, last: int) -> Events:
    """The events ``first : last``."""
    return [column[first:last] for column in events]


def plain(graph: MacroGraph, events: Events, history: list[list[tuple[int, float]]]) -> Any:
    """Count ``events`` as one would write it; ``history`` holds (item, weight) per user."""
    n_users, n_items = len(graph.users), len(graph.items)
    user_hop1, item_hop1 = graph.user_hop1(np.arange(n_users)), graph.item_hop1(np.arange(n_items))
    item_hop2 = graph.item_hop2(np.arange(n_items))
    group_U, group_I = graph.users.of_N.tolist(), graph.items.of_N.tolist()
    rows = list(zip(*(column.tolist() for column in events[:3]), strict=True))

    def run() -> None:
        for user, item, weight in rows:
            group = group_I[item]
            for other, w in history[user][-graph.push :]:
                item_hop2[other, group] += weight * w
            user_hop1[user, group] += weight
            item_hop2[item] += weight * user_hop1[user]
            item_hop1[item, group_U[user]] += weight
            history[user].append((item, weight))

    return run


def candidates(graph: MacroGraph, n_events: int) -> float:
    """Microseconds (median) of the features of 200 candidates for a user who has so many events more."""
    random = np.random.default_rng(1)
    user, n_items = 0, len(graph.items)
    graph.add(np.full(n_events, user), random.integers(0, n_items, n_events))
    took = []
    for _ in range(300):
        items = random.integers(0, n_items, CANDIDATES)
        start = perf_counter()
        graph.candidates(user, items)
        took.append(perf_counter() - start)
    return 1e6 * median(took)


def main() -> None:
    """Measure and print the line."""
    torch.set_num_threads(1)
    users, items, events = market(6_000, 4_000, BEFORE + AFTER)
    batch = cut(events, BEFORE, BEFORE + AFTER)
    history: list[list[tuple[int, float]]] = [[] for _ in range(len(users))]
    for user, item, weight in zip(*(column[:BEFORE].tolist() for column in events[:3]), strict=True):
        history[user].append((item, weight))
    graphs = [MacroGraph(users, items, *cut(events, 0, BEFORE)) for _ in range(8)]
    spare, single = iter(graphs), MacroGraph(users, items, *cut(events, 0, BEFORE))
    slow = plain(graphs[0], cut(events, BEFORE, BEFORE + PLAIN), history)
    ours, numpy_ = timed(lambda: next(spare).add(*batch), slow)

    rows = [cut(events, BEFORE + n, BEFORE + n + 1) for n in range(ONE)]
    start = perf_counter()
    for row in rows:
        single.add(*row)
    one = ONE / (perf_counter() - start)

    wide_users, wide_items, wide_events = market(1_000_000, 100_000, BEFORE + AFTER)
    wide = MacroGraph(wide_users, wide_items, *cut(wide_events, 0, BEFORE))
    start = perf_counter()
    wide.add(*cut(wide_events, BEFORE, BEFORE + AFTER))
    took_wide = perf_counter() - start

    flat = {
        str(n): round(candidates(MacroGraph(users, items, *cut(events, 0, BEFORE)), n), 1) for n in (10, 1000, 10**6)
    }
    emit(
        name="macro_add",
        value=round(AFTER / ours.wall),
        unit="events/s",
        baseline={"name": "Python and NumPy, event by event", "value": round(PLAIN / numpy_.wall)},
        ratio=round((AFTER / ours.wall) / (PLAIN / numpy_.wall), 1),
        per_cpu_second=round(AFTER / ours.cpu),
        one=round(one),
        wide=round(AFTER / took_wide),
        missed={"6000x4000": graphs[1].missed, "1000000x100000": wide.missed},
        heavy=graphs[1].n_heavy,
        state_mib={"6000x4000": graphs[1].nbytes >> 20, "1000000x100000": wide.nbytes >> 20},
        candidates_us=flat,
        threads=1,
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()
