"""How long does one query take among a million items of 64 dimensions, on one thread, and what does the index miss?

Run as ``python -m benchmarks.retrieval``; ``--items 100000`` for a smaller catalogue, ``--vectors FILE`` for those of a
bundle (its vectors.safetensors), ``--compare`` to build FAISS's other indexes, too, for which there should be some
time. The value is the median of a query for 200 items by the index that the service builds; baseline: exact search.

Two catalogues are drawn: ``skewed``, whose norms follow a power law, as where popularity has entered them;
``even``, whose norms differ little, as BPR leaves them. Users are sums of items that they might have had.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from benchmarks.line import emit
from macrorec import weights
from macrorec.serve.index import FaissIndex, IndexConfig, one_thread, recall
from macrorec.serve.retrieve import Exact

Array = npt.NDArray[np.float32]
DIM, DEPTHS = 64, (200, 500)
SHOWN = 200
"""Queries that are timed."""


def catalogue(n: int, kind: str) -> tuple[Array, Array]:
    """Items in clusters of clusters, and 1,000 users, of whom each has had some items of one to four clusters."""
    random = np.random.default_rng(0)
    spectrum = np.arange(1, DIM + 1) ** -0.35

    def normal(*shape: int) -> npt.NDArray[Any]:
        return random.standard_normal((*shape, DIM), dtype=np.float32) * spectrum.astype(np.float32)

    n_topics, n_fine = 400, max(n // 25, 400)
    topics, share = normal(n_topics), np.arange(1, n_topics + 1) ** -0.5
    topic = random.choice(n_topics, n_fine, p=share / share.sum())
    fine = topics[topic] + 0.7 * normal(n_fine)
    own = random.integers(0, n_fine, n)
    items = fine[own] + 0.5 * normal(n)
    spread = (random.pareto(1.2, n) + 1) ** 0.25 if kind == "skewed" else np.exp(0.12 * random.standard_normal(n))
    items *= (spread / np.linalg.norm(items, axis=1))[:, None].astype(np.float32)
    order = np.argsort(topic[own], kind="stable")
    start = np.searchsorted(topic[own][order], np.arange(n_topics + 1))
    users = np.zeros((1_000, DIM), dtype=np.float32)
    for user in users:
        for t in random.choice(n_topics, random.integers(1, 5)):
            if start[t + 1] > start[t]:
                user += items[order[random.integers(start[t], start[t + 1], random.integers(2, 12))]].sum(0)
    return items.astype(np.float32), (users + 1e-3 * normal(len(users))).astype(np.float32)


def timed(search: Callable[[Array], object], queries: Array) -> dict[str, float]:
    """Milliseconds of one query after another: median, 99th percentile, and median of the thread's own time."""
    search(queries[:1])
    wall, own = [], []
    for query in queries:
        start, mine = time.perf_counter(), time.thread_time()
        search(query[None])
        wall.append(time.perf_counter() - start)
        own.append(time.thread_time() - mine)
    return {
        "ms": round(float(np.median(wall)) * 1e3, 3),
        "p99_ms": round(float(np.percentile(wall, 99)) * 1e3, 3),
        "cpu_ms": round(float(np.median(own)) * 1e3, 3),
    }


def ours(items: Array, users: Array, threads: int, config: IndexConfig) -> dict[str, Any]:
    """The index of the service: calibrated by one half of the users, measured by the other."""
    exact = Exact(items)
    index = FaissIndex.build(exact, users[1::2], config, threads=threads)
    queries = np.ascontiguousarray(users[::2][:SHOWN])
    right = exact.search(queries, 500)[0]
    told: dict[str, Any] = {"kind": index.kind, **index.about, "exact": timed(partial(exact.search, k=200), queries)}
    for k in DEPTHS:
        found = index.search(queries, k)[0]
        depths = {f"recall@{d}": round(recall(found[:, :d], right[:, :d]), 4) for d in (100, k)}
        told[f"k={k}"] = {**timed(partial(index.search, k=k), queries), **depths}
    return told


def others(items: Array, users: Array, threads: int) -> dict[str, Any]:
    """FAISS's own ways to a large inner product, their best 500 re-ranked exactly; recall at 100 by depth of search."""
    exact, queries = Exact(items), np.ascontiguousarray(users[::2][:SHOWN])
    right = exact.search(queries, 100)[0]
    n_cells, inner = 2 ** round(np.log2(4 * len(items) ** 0.5)), faiss.METRIC_INNER_PRODUCT
    longest = float(np.linalg.norm(items, axis=1).max())
    rest = np.sqrt(np.maximum(longest**2 - (items.astype(np.float64) ** 2).sum(1), 0))
    lifted = np.concatenate([items, rest[:, None].astype(np.float32)], axis=1)
    lifted_queries = np.concatenate([queries, np.zeros((len(queries), 1), np.float32)], axis=1)
    kinds = {
        "IVF-flat, inner product": (items, queries, inner, f"IVF{n_cells},Flat", (64, 256)),
        "IVF-SQ8, inner product": (items, queries, inner, f"IVF{n_cells},SQ8", (64, 256)),
        "IVF-flat, augmented dimension": (lifted, lifted_queries, faiss.METRIC_L2, f"IVF{n_cells},Flat", (64, 256)),
        "HNSW32, inner product": (items, queries, inner, "HNSW32,Flat", (500, 1000)),
        "HNSW32, augmented dimension": (lifted, lifted_queries, faiss.METRIC_L2, "HNSW32,Flat", (500, 1000)),
    }
    told: dict[str, Any] = {}
    for name, (vectors, asked, metric, made, depths) in kinds.items():
        faiss.omp_set_num_threads(threads)
        start = time.perf_counter()
        index: Any = faiss.index_factory(vectors.shape[1], made, metric)
        if "HNSW" in made:
            index.hnsw.efConstruction = 100
        index.train(vectors)
        index.add(vectors)
        told[name] = {"build_s": round(time.perf_counter() - start, 1)}
        faiss.omp_set_num_threads(1)
        for depth in depths:
            if "HNSW" in made:
                index.hnsw.efSearch = depth
            else:
                index.nprobe = depth
            found = index.search(asked, 500)[1]
            scores = exact.score(queries, found)
            best = np.take_along_axis(found, np.argsort(-scores, axis=1, kind="stable"), 1)[:, :100]
            told[name][depth] = {**timed(partial(index.search, k=500), asked), "recall@100": recall(best, right)}
    return told


def main() -> None:
    """Measure and print the line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--threads", type=int, default=4, help="to build with; queries take one")
    args = parser.parse_args()
    catalogues: dict[str, tuple[Array, Array]] = {}
    if args.vectors:
        tensors = weights.read(args.vectors)
        users = tensors["users_UD"].float().numpy()
        drawn = np.random.default_rng(0).permutation(len(users))[:1_000]
        catalogues["given"] = tensors["items_ID"].float().contiguous().numpy(), np.ascontiguousarray(users[drawn])
    else:
        catalogues = {kind: catalogue(args.items, kind) for kind in ("skewed", "even")}
    one_thread()
    told = {name: ours(*vectors, args.threads, IndexConfig()) for name, vectors in catalogues.items()}
    compared = {name: others(*v, args.threads) for name, v in catalogues.items()} if args.compare else {}
    first = next(iter(told.values()))
    value, baseline = first["k=200"]["ms"], first["exact"]["ms"]
    emit(
        name="retrieval",
        value=value,
        unit="ms",
        baseline={"name": "exact search, tiles in descending norm", "value": baseline},
        ratio=round(baseline / value, 1),
        items=len(next(iter(catalogues.values()))[0]),
        catalogues=told,
        others=compared,
        load=round(os.getloadavg()[0], 1),
    )


if __name__ == "__main__":
    main()
