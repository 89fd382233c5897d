"""Whom does a ranking serve, and with which items, by how much train tells of them? Every metric by train degree.

The degree of a user, or of an item, is its number of distinct pairs of the target behaviour in train: what the model
has learned from. By degree of users, a metric is its mean over the users of a range. By degree of held-out items, only
items of the range count as relevant, the ranking stays as it is, and the mean is over the users who have one.

Shape letters: B users, E held-out pairs, K ranks, G ranges of degrees, U users, I items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from macrorec.data.log import Interactions, sorted_distinct
from macrorec.eval import metrics
from macrorec.eval.cohorts import ranges

DEGREES = (0, 1, 5, 10, 20, 50, 100)
"""Lower ends of the ranges; the last one is open."""
COUNTED = ("side", "degree", "users", "relevant")
"""Columns before those of the metrics."""

Counts = npt.NDArray[np.int64]
Rows = npt.NDArray[np.bool_]


class Held(NamedTuple):
    """Held-out pairs, and where a ranking has them."""

    place_BK: Counts
    """Which of the pairs stands at each rank of a user; -1 where the item is not relevant."""
    row_E: Counts
    """The user, from 0 to B - 1, of each pair; ascending."""
    degree_B: Counts
    """Train degree of each user."""
    degree_E: Counts
    """Train degree of each pair's item."""


def train_degrees(train: Interactions) -> tuple[Counts, Counts]:
    """Distinct target pairs in ``train`` of each user (U,) and of each item (I,)."""
    own, n_items = train.behavior == train.target, max(len(train.items), 1)
    pair_E = sorted_distinct(train.user[own].astype(np.int64) * n_items + train.item[own])
    user_E, item_E = np.divmod(pair_E, n_items)
    return np.bincount(user_E, minlength=len(train.users)), np.bincount(item_E, minlength=len(train.items))


def breakdown(held: Held, values: Mapping[str, npt.NDArray[np.float64]], cohorts: Mapping[str, Rows]) -> pl.DataFrame:
    """``side, degree, users, relevant``, then the mean of each metric; a row per range that has a held-out pair.

    ``side`` is "user" or "item", ``degree`` a range such as "5-9" or "100+"; ``users`` are those that means are over,
    ``relevant`` the held-out pairs. ``values`` are per user (B,), by name, NaN where a user has no held-out item of the
    metric's cohort; ``cohorts`` tells which pairs (E,) are in one. Null is what a range cannot tell.
    """
    group_B, group_E = (np.searchsorted(DEGREES, degree, side="right") - 1 for degree in (held.degree_B, held.degree_E))
    rows = []
    for number, name in enumerate(ranges(DEGREES)):
        users_B = group_B == number
        if users_B.any():
            counts = {"users": int(users_B.sum()), "relevant": int(users_B[held.row_E].sum())}
            means = {metric: _mean(value_B[users_B]) for metric, value_B in values.items()}
            rows.append({"side": "user", "degree": name, **counts, **means})
    means_G = _by_item(held, group_E, list(values), cohorts)
    for number, name in enumerate(ranges(DEGREES)):
        pairs_E = group_E == number
        if pairs_E.any():
            counts = {"users": len(np.unique(held.row_E[pairs_E])), "relevant": int(pairs_E.sum())}
            rows.append({"side": "item", "degree": name, **counts, **means_G[number]})
    kinds = dict.fromkeys(COUNTED[:2], pl.String) | dict.fromkeys(COUNTED[2:], pl.Int64)
    return pl.DataFrame(rows, schema=kinds | dict.fromkeys(values, pl.Float64))


def _by_item(held: Held, group_E: Counts, names: list[str], cohorts: Mapping[str, Rows]) -> list[dict[str, Any]]:
    """Per range the mean of each metric with only its items as relevant."""
    means_G: list[dict[str, Any]] = [dict.fromkeys(names) for _ in DEGREES]
    parsed = {name: metrics.parse(name) for name in names}
    for cohort in dict.fromkeys(cohort for _, _, cohort in parsed.values()):
        own_E = group_E if cohort is None else np.where(cohorts[cohort], group_E, len(DEGREES))
        # One more column on either side, so that every number has a place: pairs of no range, and ranks without a pair.
        n_BG = np.bincount(held.row_E * (len(DEGREES) + 1) + own_E, minlength=len(held.degree_B) * (len(DEGREES) + 1))
        n_BG = n_BG.reshape(len(held.degree_B), -1)
        group_BK = np.append(own_E, -1)[held.place_BK]
        for number, means in enumerate(means_G):
            users_B = np.flatnonzero(n_BG[:, number])
            hits_BK, relevant_B = group_BK[users_B] == number, n_BG[users_B, number]
            for name, (metric, cut, of) in parsed.items():
                if of == cohort and len(users_B):
                    means[name] = _mean(metrics.METRICS[metric].function(hits_BK[:, :cut], relevant_B))
    return means_G


def _mean(value_B: npt.NDArray[np.float64]) -> float | None:
    """The mean of what is there."""
    there_B = value_B[~np.isnan(value_B)]
    return float(there_B.mean()) if len(there_B) else None
