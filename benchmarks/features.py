"""How long do features of 200,000 impressions take from a log of a million ratings? 6,000 users x 4,000 items.

Run as ``python -m benchmarks.features``. The value is the whole job of a snapshot, from parts in memory to samples: the
boundary, k-means of users, counts of two hops on both sides, recents, for 18 categories; ``as_of`` is the same with the
state of each moment. One thread. Baseline: the snapshot in the usual way, by pandas, scipy and scikit-learn.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from benchmarks.line import emit
from benchmarks.turns import timed
from macrorec.data.catalog import Catalog
from macrorec.data.log import Behavior, Interactions, Split
from macrorec.data.vocab import Vocab
from macrorec.graph.features import FeatureConfig, FeatureSet, feature_set

EVENTS, USERS, ITEMS, CATEGORIES, GROUPS, RECENTS = 1_000_000, 6_000, 4_000, 18, 20, 20
pd: Any = importlib.import_module("pandas")
Array = npt.NDArray[Any]


def log(random: np.random.Generator) -> Interactions:
    """Ratings in order of time: users of lognormal activity who come and go, items of Zipf-like popularity."""
    activity = random.lognormal(sigma=1.0, size=USERS)
    user = random.choice(USERS, EVENTS, p=activity / activity.sum())
    popularity = 1 / (20 + np.arange(ITEMS))
    item = random.permutation(ITEMS)[random.choice(ITEMS, EVENTS, p=popularity / popularity.sum())]
    time = (random.random(USERS)[user] * 8e7 + random.random(EVENTS) * 2e7).astype(np.int64)
    order = np.argsort(time, kind="stable")
    label = (random.random(EVENTS) < 0.58).astype(np.float32)
    return Interactions(
        Vocab(np.arange(USERS)),
        Vocab(np.arange(ITEMS)),
        (Behavior(name="rating"),),
        user[order].astype(np.int32),
        item[order].astype(np.int32),
        np.zeros(EVENTS, dtype=np.int8),
        time[order],
        label=label[order],
    )


def usual(frame: Any, category_I: npt.NDArray[np.int64], first: float, second: float) -> list[Array]:
    """The features of a snapshot, by data frames and sparse matrices; q80 and q90 are the times given."""
    c_i = sp.csr_matrix((np.ones(ITEMS), (np.arange(ITEMS), category_I)), (ITEMS, CATEGORIES))
    cluster: npt.NDArray[np.int64] | None = None
    found: list[Array] = []
    for low, high in ((first, second), (second, np.inf)):
        history = frame[(frame.time <= low) & (frame.label > 0.5)].sort_values("time", kind="stable")
        samples = frame[(frame.time > low) & (frame.time <= high)]
        r = sp.csr_matrix((np.ones(len(history)), (history.user, history.item)), (USERS, ITEMS))
        u1 = (r @ c_i).toarray()
        if cluster is None:
            cluster = KMeans(GROUPS, n_init=4, random_state=0).fit_predict(normalize(u1))
        c_u = sp.csr_matrix((np.ones(USERS), (np.arange(USERS), cluster)), (USERS, GROUPS))
        i1 = (r.T @ c_u).toarray()
        counts = (u1, "user"), (r @ i1, "user"), (i1, "item"), (r.T @ u1, "item")
        found += [table[samples[side]] for table, side in counts]
        for side, other, n in (("user", "item", USERS), ("item", "user", ITEMS)):
            latest = history.groupby(side).tail(RECENTS)
            place = latest.groupby(side).cumcount(ascending=False)
            table = np.full((n, RECENTS), -1)
            table[latest[side], place] = latest[other]
            found.append(table[samples[side]])
    return found


def main() -> None:
    """Measure and print the line."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        measure()


def measure() -> None:
    """All three in turns."""
    random = np.random.default_rng(0)
    ratings = log(random)
    assert ratings.time is not None and ratings.label is not None
    first, second = (float(np.quantile(ratings.time, q, method="inverted_cdf")) for q in (0.8, 0.9))
    valid = float(np.quantile(ratings.time, 0.89, method="inverted_cdf"))
    cuts = ratings.time <= valid, (ratings.time > valid) & (ratings.time <= second), ratings.time > second
    train, valid_part, test = (ratings.take(cut) for cut in cuts)
    parts = Split(train, valid_part, test, protocol={})
    category_I = random.integers(CATEGORIES, size=ITEMS)
    catalog = Catalog(
        names=tuple(f"category {number}" for number in range(CATEGORIES)),
        start_I=np.arange(ITEMS + 1),
        category_L=category_I.astype(np.int32),
        titles=None,
        path=Path("items"),
        category="category",
        absent=0,
        empty=0,
        strangers=0,
    )
    frame = pd.DataFrame({"user": ratings.user, "item": ratings.item, "time": ratings.time, "label": ratings.label})

    def made(kind: str) -> FeatureSet:
        return feature_set(parts, FeatureConfig(kind=kind), catalog, seed=0)  # type: ignore[arg-type]

    def plain() -> list[Array]:
        return usual(frame, category_I, first, second)

    features = made("snapshot").samples["train"].features
    ours, theirs = (features.user_hop1_BQ, features.user_recent_BR, features.item_recent_BR), plain()
    for mine, other in zip(ours, (theirs[0], theirs[4], theirs[5]), strict=True):
        assert np.array_equal(mine.numpy(), other[: len(mine)])
    took, as_of, baseline = timed(lambda: made("snapshot"), lambda: made("as_of"), plain, repeats=5)
    emit(
        name="features",
        value=round(took.wall, 3),
        unit="s",
        baseline={"name": "pandas, scipy and scikit-learn", "value": round(baseline.wall, 3)},
        ratio=round(baseline.wall / took.wall, 2),
        as_of=round(as_of.wall, 3),
        cpu={"snapshot": round(took.cpu, 3), "as_of": round(as_of.cpu, 3), "baseline": round(baseline.cpu, 3)},
        log={"events": EVENTS, "users": USERS, "items": ITEMS, "samples": int((ratings.time > first).sum())},
        threads=1,
    )


if __name__ == "__main__":
    main()
