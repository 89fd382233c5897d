"""Is one run better than another, or was it luck? Paired bootstrap over users.

Shape letters: U users, M metrics, R resamples of one chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from macrorec.errors import ConfigError, DataError

Floats = npt.NDArray[np.float64]

CHUNK_DRAWS = 1 << 21
"""User draws held at once."""
NOT_METRICS = ("user_id", "impressions")


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Run a against run b in one metric, over the users that both have."""

    metric: str
    a: float
    """Mean of run a."""
    b: float
    """Mean of run b."""
    difference: float
    """a - b."""
    low: float
    """Lower end of the 95 % percentile interval of the difference."""
    high: float
    """Upper end."""
    share_above: float
    """Share of resamples in which a is above b."""
    p: float
    """Two-sided: twice the smaller share of resamples at or beyond zero, counting the data as one more; at most 1."""
    users: int
    """Users compared."""
    users_only_a: int
    """Users measured in run a alone; left out."""
    users_only_b: int
    """Users measured in run b alone; left out."""


def compare(
    run_a: pl.DataFrame,
    run_b: pl.DataFrame,
    metrics: Sequence[str] | None = None,
    *,
    n_bootstrap: int = 10_000,
    seed: int = 0,
) -> tuple[Comparison, ...]:
    """Compare per-user frames (``user_id`` and one column per metric), user by user; all common metrics by default.

    ``gauc`` is weighted by run a's ``impressions``. Users whom one run did not measure, or measured as null, are left
    out and counted. Raises ConfigError on a metric that one run lacks, DataError if there are no common users.
    """
    if n_bootstrap < 1:
        raise ConfigError(f"n_bootstrap must be at least 1, got {n_bootstrap}")
    shared = [name for name in run_a.columns if name in run_b.columns and name not in NOT_METRICS]
    for name in metrics or ():
        if name not in shared:
            raise ConfigError(f"metric {name!r} is not in both runs; they share {', '.join(shared) or 'none'}")
    names = list(metrics or shared)
    if not names:
        raise ConfigError(f"the runs share no metric: {', '.join(run_a.columns)} against {', '.join(run_b.columns)}")
    answers = []
    for name in names:
        a, b, weight_U, only_a, only_b = _paired(run_a, run_b, name)
        total = weight_U.sum()
        means = paired_bootstrap(a - b, weight_U, n_bootstrap, seed)
        low, high = np.percentile(means, [2.5, 97.5])
        beyond = 1 + min((means <= 0).sum(), (means >= 0).sum())
        answers.append(
            Comparison(
                metric=name,
                a=float((a * weight_U).sum() / total),
                b=float((b * weight_U).sum() / total),
                difference=float(((a - b) * weight_U).sum() / total),
                low=float(low),
                high=float(high),
                share_above=float((means > 0).mean()),
                p=min(1.0, float(2 * beyond / (n_bootstrap + 1))),
                users=len(a),
                users_only_a=only_a,
                users_only_b=only_b,
            )
        )
    return tuple(answers)


def paired_bootstrap(difference_U: Floats, weight_U: Floats, n_bootstrap: int, seed: int) -> Floats:
    """Weighted mean differences of ``n_bootstrap`` resamples of users, shape (n_bootstrap,).

    A resample draws U users with replacement; how often each was drawn is its factor. Equal seeds and equal U give
    equal resamples, so metrics of one pair of runs are resampled together.
    """
    n = len(difference_U)
    generator = np.random.default_rng(seed)
    values_U2 = np.stack([difference_U * weight_U, weight_U], axis=1)
    means: list[Floats] = []
    step = max(1, CHUNK_DRAWS // n)
    for start in range(0, n_bootstrap, step):
        size = min(step, n_bootstrap - start)
        drawn_RU = generator.integers(n, size=(size, n), dtype=np.int32)
        drawn_RU += np.arange(size, dtype=np.int32)[:, None] * np.int32(n)
        counts_RU = np.bincount(drawn_RU.ravel(), minlength=size * n).reshape(size, n)
        sums_R2 = counts_RU.astype(np.float64) @ values_U2
        means.append(sums_R2[:, 0] / sums_R2[:, 1])
    return np.concatenate(means)


def _paired(run_a: pl.DataFrame, run_b: pl.DataFrame, name: str) -> tuple[Floats, Floats, Floats, int, int]:
    """Values of both runs and weights, by user, and how many users only one run has."""
    weighted = name == "gauc" and "impressions" in run_a.columns
    weight = pl.col("impressions") if weighted else pl.lit(1)
    left = run_a.select("user_id", a=pl.col(name), weight=weight.cast(pl.Float64)).drop_nulls()
    right = run_b.select("user_id", b=pl.col(name)).drop_nulls()
    if left["user_id"].dtype != right["user_id"].dtype:
        left, right = (frame.with_columns(pl.col("user_id").cast(pl.String)) for frame in (left, right))
    for frame in (left, right):
        if frame["user_id"].is_duplicated().any():
            raise DataError("a per-user frame must hold each user once")
    both = left.join(right, on="user_id", how="inner").sort("user_id")
    if both.is_empty():
        raise DataError(f"the runs measured {name!r} on no common user; compare runs of the same data and split")
    a, b, weight_U = (both[column].cast(pl.Float64).to_numpy() for column in ("a", "b", "weight"))
    return a, b, weight_U, len(left) - len(both), len(right) - len(both)
