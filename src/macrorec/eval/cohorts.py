"""For whom does a model work? Metrics by the user's number of target edges in train."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from macrorec.data.log import Interactions
from macrorec.errors import ConfigError

DEGREES = (0, 1, 5, 10, 20, 50, 100)
"""Lower ends of the cohorts; the last one is open."""


def by_degree(per_user: pl.DataFrame, train: Interactions, degrees: Sequence[int] = DEGREES) -> pl.DataFrame:
    """Columns ``degree`` ("5-9", "100+"), ``users``, and the mean of each metric; one row per cohort that has users.

    A user's degree is its number of distinct items of the target behaviour in train. Nulls are left out of a mean.
    """
    if list(degrees) != sorted(set(degrees)) or not degrees or degrees[0] != 0:
        raise ConfigError(f"degrees must ascend from 0, got {tuple(degrees)}")
    rows = train.take(train.behavior == train.target)
    edge = np.unique(rows.user.astype(np.int64) * len(train.items) + rows.item)
    degree_U = np.bincount(edge // max(len(train.items), 1), minlength=len(train.users))
    cohort = np.searchsorted(degrees, degree_U[train.users.numbers(per_user["user_id"])], side="right") - 1
    names = [
        f"{low}+" if high is None else (f"{low}" if high == low + 1 else f"{low}-{high - 1}")
        for low, high in zip(degrees, [*degrees[1:], None], strict=True)
    ]
    return (
        per_user.drop("user_id")
        .with_columns(cohort=pl.Series(cohort))
        .group_by("cohort")
        .agg(pl.len().alias("users"), pl.all().exclude("cohort").mean())
        .sort("cohort")
        .select(
            pl.col("cohort").replace_strict(dict(enumerate(names)), return_dtype=pl.String).alias("degree"),
            pl.all().exclude("cohort"),
        )
    )
