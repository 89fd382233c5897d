"""How many (user, item, negative) samples per second, against a plain Python loop over the same edges?

A graph of Gowalla's size (29,858 users, 40,981 items, 810,128 edges), batches of 2048, negatives that are no edges.
"""

from __future__ import annotations

import random
import time
from statistics import median

import numpy as np

from benchmarks.line import emit
from macrorec.api import Pairwise
from macrorec.data.log import Behavior
from macrorec.graph.bipartite import Edges, Graph, edges_of
from macrorec.train.sampling import sampler

N_USERS, N_ITEMS, N_EDGES, BATCH = 29_858, 40_981, 810_128, 2048
LOOP_SAMPLES = 200_000


def gowalla_sized() -> Edges:
    """Unique edges with skewed degrees on both sides."""
    rng = np.random.default_rng(0)
    n = int(1.3 * N_EDGES)
    user, item = N_USERS * rng.random(n) ** 1.7, N_ITEMS * rng.random(n) ** 2
    unique = np.unique(user.astype(np.int64) * N_ITEMS + item.astype(np.int64))
    kept = rng.choice(unique, N_EDGES, replace=False)
    return edges_of(kept // N_ITEMS, kept % N_ITEMS, N_USERS, N_ITEMS)


def loop(edges: Edges) -> float:
    """Samples per second of the loop that anybody would write: a set per user, redraw while it is hit."""
    own: list[set[int]] = [set() for _ in range(N_USERS)]
    pairs = list(zip(edges.user_E.tolist(), edges.item_E.tolist(), strict=True))
    for user, item in pairs:
        own[user].add(item)
    chance = random.Random(0)
    start = time.perf_counter()
    chance.shuffle(pairs)
    shuffled = (time.perf_counter() - start) * LOOP_SAMPLES / N_EDGES
    start = time.perf_counter()
    samples = []
    for user, item in pairs[:LOOP_SAMPLES]:
        negative = chance.randrange(N_ITEMS)
        while negative in own[user]:
            negative = chance.randrange(N_ITEMS)
        samples.append((user, item, negative))
        if len(samples) == BATCH:
            np.array(samples)
            samples = []
    return LOOP_SAMPLES / (time.perf_counter() - start + shuffled)


def main() -> None:
    """Print the line."""
    edges = gowalla_sized()
    graph = Graph(N_USERS, N_ITEMS, (Behavior(name="visit"),), (edges,))
    batches = sampler(Pairwise(true_negatives=True), graph, BATCH, seed=0)
    seconds = []
    for epoch in range(5):
        start = time.perf_counter()
        for _ in batches.epoch(epoch):
            pass
        seconds.append(time.perf_counter() - start)
    ours, plain = N_EDGES / median(seconds), loop(edges)
    emit(
        name="sampling",
        value=round(ours),
        unit="samples/s",
        baseline={"name": "plain Python loop", "value": round(plain)},
        ratio=round(ours / plain, 2),
        milliseconds_per_batch=round(1e3 * median(seconds) / batches.n_steps, 3),
    )


if __name__ == "__main__":
    main()
