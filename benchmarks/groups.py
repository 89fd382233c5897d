"""Do groups find what a market planted? Adjusted mutual information on the demo market, and the time it takes.

Per side, k-means into as many groups as were planted, mean over ten seeds: on behaviour vectors (ours), on the degree
alone (raw, and its logarithm), a random grouping, and the ceiling: the most likely label of each node for one who knows
the truth of the market and of the other side. ``value`` is the mean of both sides, ``baseline`` that of k-means on the
logarithm of the degree. Users are shown over item groups by category and by k-means, too.

Time: the median of five, in milliseconds, of vectors and k-means at 6,000 users x 18 categories and 4,000 items x 32,
and of k-means alone at a million nodes x 20.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.line import emit
from macrorec.data.catalog import read_catalog
from macrorec.data.log import Behavior, Interactions
from macrorec.data.market import BEHAVIORS, Market, MarketConfig, plant
from macrorec.data.prepare import PrepareConfig, prepare
from macrorec.data.sources.source import Source, read
from macrorec.data.synthetic import read_truth, write_market
from macrorec.graph.groups import Groups, agreement, by_category, by_kmeans, given, item_vectors, user_vectors

SEEDS = range(10)


def scores(make: Callable[[int], Groups], truth: npt.NDArray[np.int64]) -> dict[str, float]:
    """Mean and least agreement over ``SEEDS``."""
    found = [agreement(make(seed), truth) for seed in SEEDS]
    return {"mean": round(mean(found), 4), "least": round(min(found), 4)}


def by_degree(degree: npt.NDArray[Any], k: int) -> Callable[[int], Groups]:
    """k-means on one number per node."""
    return lambda seed: by_kmeans(degree[:, None].astype(np.float64), k, seed=seed)


def ceiling(log: Interactions, market: Market, group_U: Any, cluster_I: Any) -> tuple[float, float]:
    """Agreement of users' likeliest groups given all clusters, and of items' likeliest clusters given all groups."""
    affinity_GK = market.affinity_GK
    met_UK = np.zeros((len(log.users), affinity_GK.shape[1]))
    np.add.at(met_UK, (log.user, cluster_I[log.item]), 1)
    met_IG = np.zeros((len(log.items), len(affinity_GK)))
    np.add.at(met_IG, (log.item, group_U[log.user]), 1)
    events_G = np.bincount(group_U[log.user], minlength=len(affinity_GK))
    share_GK = affinity_GK * events_G[:, None]  # who visits an item of cluster k
    users = given((met_UK @ np.log(affinity_GK.T)).argmax(1))
    items = given((met_IG @ np.log(share_GK / share_GK.sum(0))).argmax(1))
    return agreement(users, group_U), agreement(items, cluster_I)


def milliseconds(run: Callable[[], object]) -> float:
    """The median of five runs."""
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return round(1e3 * median(taken), 1)


def speed() -> dict[str, float]:
    """Times on a made-up log of a million events, whose users have tastes."""
    rng = np.random.default_rng(0)
    user = (6000 * rng.random(10**6) ** 1.5).astype(np.int64)
    category = given(rng.integers(18, size=4000))
    taste_U18 = rng.dirichlet(np.full(18, 0.5), 25)[rng.integers(25, size=6000)].cumsum(1)
    wanted = (rng.random(10**6)[:, None] > taste_U18[user]).sum(1).clip(0, 17)
    order = np.argsort(category.of_N, kind="stable")
    first = np.searchsorted(category.of_N[order], np.arange(19))
    item = order[(first[wanted] + rng.random(10**6) ** 2 * np.diff(first)[wanted]).astype(np.int64)]
    of_users = user_vectors(user, item, None, category, 6000)
    of_items = item_vectors(user, item, None, 6000, 4000, 32, seed=0)
    million = rng.dirichlet(np.full(20, 0.3), 10**6).astype(np.float32)
    return {
        "user_vectors_6000x18": milliseconds(lambda: user_vectors(user, item, None, category, 6000)),
        "kmeans_20_of_6000x18": milliseconds(lambda: by_kmeans(of_users, 20, seed=0)),
        "item_vectors_4000x32": milliseconds(lambda: item_vectors(user, item, None, 6000, 4000, 32, seed=0)),
        "kmeans_18_of_4000x32": milliseconds(lambda: by_kmeans(of_items, 18, seed=0)),
        "kmeans_20_of_1000000x20": milliseconds(lambda: by_kmeans(million, 20, seed=0)),
    }


def main() -> None:
    """Write the demo market to a temporary folder, group it, print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--market-seed", type=int, default=0)
    options = parser.parse_args()
    config = MarketConfig()
    with tempfile.TemporaryDirectory() as folder:
        write_market(config, folder, options.market_seed)
        behaviors = tuple(Behavior(name=name, role="auxiliary") for name in BEHAVIORS[:-1])
        log_file, item_file = str(Path(folder) / "log.parquet"), str(Path(folder) / "items.parquet")
        source = Source(path=log_file, items=item_file, behaviors=(*behaviors, Behavior(name=BEHAVIORS[-1])))
        log = prepare({"train": read(source)}, source.behaviors, PrepareConfig(dedupe="none")).train
        catalog = read_catalog(source, log.items)
        assert catalog is not None
        group_U, cluster_I = read_truth(folder, log.users, log.items)
    n_users, n_items = len(log.users), len(log.items)
    degree_U, degree_I = np.bincount(log.user, minlength=n_users), np.bincount(log.item, minlength=n_items)
    category = by_category(*catalog.groups("first"))
    met_U = user_vectors(log.user, log.item, None, category, n_users)
    vectors_I = item_vectors(log.user, log.item, None, n_users, n_items, seed=0)
    over_U = user_vectors(log.user, log.item, None, by_kmeans(vectors_I, config.clusters, seed=0), n_users)
    best_U, best_I = ceiling(log, plant(config, options.market_seed), group_U, cluster_I)

    def side(vectors: Any, degree: Any, k: int, truth: Any) -> dict[str, Any]:
        return {
            "vectors": scores(lambda seed: by_kmeans(vectors, k, seed=seed), truth),
            "vectors_20_groups": scores(lambda seed: by_kmeans(vectors, 20, seed=seed), truth),
            "log_degree": scores(by_degree(np.log1p(degree), k), truth),
            "degree": scores(by_degree(degree, k), truth),
            "random": scores(lambda seed: given(np.random.default_rng(seed).integers(k, size=len(truth))), truth),
        }

    users = {**side(met_U, degree_U, config.groups, group_U), "ceiling": round(best_U, 4)}
    users["vectors_over_item_kmeans"] = scores(lambda seed: by_kmeans(over_U, config.groups, seed=seed), group_U)
    items = {**side(vectors_I, degree_I, config.clusters, cluster_I), "ceiling": round(best_I, 4)}
    items["category_column"] = round(agreement(category, cluster_I), 4)
    ours, plain = (mean(s[name]["mean"] for s in (users, items)) for name in ("vectors", "log_degree"))
    emit(
        name="groups",
        value=round(ours, 4),
        unit="adjusted mutual information",
        baseline={"name": "k-means on the logarithm of the degree", "value": round(plain, 4)},
        ratio=round(ours / plain, 1) if plain > 0.01 else None,
        users=users["vectors"]["mean"],
        users_ceiling=users["ceiling"],
        users_random=users["random"]["mean"],
        items=items["vectors"]["mean"],
        items_ceiling=items["ceiling"],
        items_random=items["random"]["mean"],
        detail={"users": users, "items": items, "milliseconds": speed()},
        rows=len(log),
        market_seed=options.market_seed,
    )


if __name__ == "__main__":
    main()
