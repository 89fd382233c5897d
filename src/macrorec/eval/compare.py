"""Is one run, or one group of runs, better than another, or was it luck? Paired bootstrap over users.

A resample draws as many users as there are, with replacement, the same for both sides. Runs of several seeds count by
their mean: an interval tells what other users would have done to it, and takes the seeds as they are.

Shape letters: U users, E impressions, R resamples of one chunk, M metrics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from macrorec.errors import ConfigError, DataError
from macrorec.eval import metrics as measures
from macrorec.eval.cohorts import HISTORY_COLUMNS
from macrorec.ops.threads import in_parts

Floats = npt.NDArray[np.float64]

CHUNK_DRAWS = 1 << 21
"""User draws held at once."""
RESAMPLES_AT_ONCE = 32
"""Resamples whose AUC one thread computes in one go."""
NOT_METRICS = ("user_id", "impressions")
IMPRESSION = ("user_id", "item_id", "label")


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Run a, or the mean of runs a, against b in one metric, over the users that both have."""

    metric: str
    a: float
    """Value of a: the mean over users, or the AUC over all impressions; of several runs the mean."""
    b: float
    """Value of b."""
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
    runs_a: int = 1
    """Runs of a, of different seeds."""
    runs_b: int = 1
    """Runs of b."""


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
    pairs = {name: _paired(run_a, run_b, name) for name in names}
    together: dict[bytes, list[str]] = {}
    for name, pair in pairs.items():
        together.setdefault(pair.weight_U.tobytes(), []).append(name)
    spans: dict[str, dict[str, Any]] = {}
    for own in together.values():
        difference_UM = np.stack([pairs[name].a_U - pairs[name].b_U for name in own], axis=1)
        means_RM = paired_bootstrap(difference_UM, pairs[own[0]].weight_U, n_bootstrap, seed)
        spans |= {name: interval(means_RM[:, place]) for place, name in enumerate(own)}
    return tuple(
        Comparison(
            metric=name,
            a=pair.mean(pair.a_U),
            b=pair.mean(pair.b_U),
            difference=pair.mean(pair.a_U - pair.b_U),
            users=len(pair.a_U),
            users_only_a=pair.only_a,
            users_only_b=pair.only_b,
            **spans[name],
        )
        for name, pair in pairs.items()
    )


def compare_auc(
    runs_a: Sequence[pl.DataFrame],
    runs_b: Sequence[pl.DataFrame],
    *,
    count: Literal["all", "warm"] = "all",
    n_bootstrap: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare the AUC over all impressions of two groups of runs, by a paired cluster bootstrap over users.

    A resampled user brings all its impressions, as often as it was drawn; each run's AUC is that of the whole resample,
    and a group's is the mean over its runs. Resamples of one label have no AUC and are left out. Frames are those of
    ``Evaluation.samples``; ``count="warm"`` keeps impressions whose user and item have history.

    Raises ConfigError for n_bootstrap below 1; DataError unless all frames hold the same impressions, of both labels.
    """
    if n_bootstrap < 1:
        raise ConfigError(f"n_bootstrap must be at least 1, got {n_bootstrap}")
    frames = _same_impressions([_counted(frame, count) for frame in (*runs_a, *runs_b)])
    user_E = (frames[0]["user_id"].rank("dense").to_numpy() - 1).astype(np.int32)
    label_E = frames[0]["label"].to_numpy()
    values = np.array([measures.auc(label_E, frame["logit"].to_numpy()) for frame in frames])
    if not len(label_E) or np.isnan(values).any():
        raise DataError(f"auc needs impressions of both labels; the runs measured {len(label_E):,} of one")
    n_a, n_users = len(runs_a), int(user_E.max()) + 1
    aucs_RK = np.concatenate(
        [
            np.stack([_aucs(user_E, label_E, frame["logit"].to_numpy(), counts_RU) for frame in frames], axis=1)
            for counts_RU in resamples(n_users, n_bootstrap, seed)
        ]
    )
    aucs_RK = aucs_RK[~np.isnan(aucs_RK[:, 0])]
    a, b = float(values[:n_a].mean()), float(values[n_a:].mean())
    return Comparison(
        metric="auc",
        a=a,
        b=b,
        difference=a - b,
        users=n_users,
        users_only_a=0,
        users_only_b=0,
        runs_a=n_a,
        runs_b=len(runs_b),
        **interval(aucs_RK[:, :n_a].mean(1) - aucs_RK[:, n_a:].mean(1)),
    )


def interval(difference_R: Floats) -> dict[str, Any]:
    """``low, high, share_above, p`` of a ``Comparison`` from the differences of all resamples."""
    low, high = np.percentile(difference_R, [2.5, 97.5])
    beyond = 1 + min((difference_R <= 0).sum(), (difference_R >= 0).sum())
    return {
        "low": float(low),
        "high": float(high),
        "share_above": float((difference_R > 0).mean()),
        "p": min(1.0, float(2 * beyond / (len(difference_R) + 1))),
    }


def mean_per_user(runs: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Per-user frames of several runs as one: the mean of each user's values, null where any run has none."""
    if len(runs) == 1:
        return runs[0]
    shared = [name for name in runs[0].columns if all(name in frame.columns for frame in runs)]
    values = pl.all().exclude("user_id")
    texts = pl.col("user_id").cast(pl.String)
    return (
        pl.concat([frame.select(shared).with_columns(texts) for frame in runs], how="vertical_relaxed")
        .group_by("user_id")
        .agg(pl.when(values.count() == len(runs)).then(values.mean()))
        .sort("user_id")
    )


def paired_bootstrap(difference_UM: Floats, weight_U: Floats, n_bootstrap: int, seed: int) -> Floats:
    """Weighted mean differences of M metrics in ``n_bootstrap`` resamples of users, shape (n_bootstrap, M).

    A resample draws U users with replacement; how often each was drawn is its factor. Equal seeds and equal U give
    equal resamples.
    """
    values_UM = np.concatenate([difference_UM * weight_U[:, None], weight_U[:, None]], axis=1)
    means: list[Floats] = []
    for counts_RU in resamples(len(weight_U), n_bootstrap, seed):
        sums_RM = counts_RU.astype(np.float64) @ values_UM
        means.append(sums_RM[:, :-1] / sums_RM[:, -1:])
    return np.concatenate(means)


def resamples(n: int, n_bootstrap: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """How often each of n users was drawn in each resample, chunks of shape (R, n); ``n_bootstrap`` rows in all."""
    generator = np.random.default_rng(seed)
    step = max(1, CHUNK_DRAWS // n)
    for start in range(0, n_bootstrap, step):
        size = min(step, n_bootstrap - start)
        drawn_RU = generator.integers(n, size=(size, n), dtype=np.int32)
        drawn_RU += np.arange(size, dtype=np.int32)[:, None] * np.int32(n)
        yield np.bincount(drawn_RU.ravel(), minlength=size * n).reshape(size, n)


def _aucs(
    user_E: npt.NDArray[np.int32], label_E: npt.NDArray[np.float32], score_E: Floats, counts_RU: npt.NDArray[np.int64]
) -> Floats:
    """The AUC of each resample, shape (R,)."""
    from macrorec.eval.resampled import auc_of_resamples

    order = np.argsort(score_E, kind="stable")
    ends_E = np.append(np.diff(score_E[order]) > 0, True)
    user_E, positive_E, answer_R = user_E[order], label_E[order] > 0.5, np.empty(len(counts_RU))

    def part(a: int, b: int) -> None:
        auc_of_resamples(user_E, positive_E, ends_E, counts_RU[a:b], answer_R[a:b])

    in_parts(part, [*range(0, len(counts_RU), RESAMPLES_AT_ONCE), len(counts_RU)])
    return answer_R


def _counted(samples: pl.DataFrame, count: Literal["all", "warm"]) -> pl.DataFrame:
    if count == "all":
        return samples
    if not set(HISTORY_COLUMNS) <= set(samples.columns):
        raise DataError("a run has no lengths of history, so that its warm impressions are not known; compare all")
    return samples.filter(pl.all_horizontal(pl.col(name) > 0 for name in HISTORY_COLUMNS))


def _same_impressions(frames: Sequence[pl.DataFrame]) -> list[pl.DataFrame]:
    """The frames in one order of impressions. Raises DataError if they do not hold the same ones."""
    texts, nth = pl.col("user_id", "item_id").cast(pl.String), pl.int_range(pl.len()).over(IMPRESSION).alias("nth")
    ordered = [frame.with_columns(texts).with_columns(nth).sort(*IMPRESSION, "nth") for frame in frames]
    for other in ordered[1:]:
        if not other.select(IMPRESSION).equals(ordered[0].select(IMPRESSION)):
            raise DataError(
                f"the runs measured different impressions ({len(ordered[0]):,} and {len(other):,}): compare runs of "
                "the same data, split and features"
            )
    return ordered


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Both runs' values of one metric by user, in order of user ids, and how many users only one run has."""

    a_U: Floats
    b_U: Floats
    weight_U: Floats
    only_a: int
    only_b: int

    def mean(self, values_U: Floats) -> float:
        """The weighted mean."""
        return float((values_U * self.weight_U).sum() / self.weight_U.sum())


def _paired(run_a: pl.DataFrame, run_b: pl.DataFrame, name: str) -> Pair:
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
    return Pair(a, b, weight_U, len(left) - len(both), len(right) - len(both))
