"""How good is a ranking, or a predicted probability? One definition per metric, no multipliers.

Shape letters: B users, K ranks, E labelled pairs.

A ranking metric sees ``hits_BK`` (whether the item at each of the first K ranks is relevant) and ``relevant_B`` (how
many relevant items each user has, at least one), and answers one float64 per user. A metric of labelled pairs answers
one number for all pairs.

Where a log has auxiliary behaviours, a ranking metric also exists for a cohort of the held-out items alone, under a
name such as ``hr@10:discovery``: the ranking is the same, and only items of the cohort count as relevant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from macrorec.errors import ConfigError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

Protocol = Literal["ranking", "links", "ctr"]

CLIP = 1e-7
"""Probabilities are clipped to [CLIP, 1 - CLIP] before a logarithm."""


def recall(hits_BK: Array, relevant_B: Array) -> Floats:
    """hits / relevant."""
    values: Floats = hits_BK.sum(1) / relevant_B
    return values


def precision(hits_BK: Array, relevant_B: Array) -> Floats:
    """hits / k, also where the catalogue has fewer than k items left."""
    values: Floats = hits_BK.sum(1) / float(hits_BK.shape[1])
    return values


def hr(hits_BK: Array, relevant_B: Array) -> Floats:
    """1 if there is any hit, else 0."""
    return np.where(hits_BK.any(1), 1.0, 0.0)


def mrr(hits_BK: Array, relevant_B: Array) -> Floats:
    """1 / rank of the first hit, 0 without a hit."""
    return np.where(hits_BK.any(1), 1.0 / (1 + hits_BK.argmax(1)), 0.0)


def average_precision(hits_BK: Array, relevant_B: Array) -> Floats:
    """sum over hits of (hits up to that rank / rank), / min(relevant, k)."""
    ranks = np.arange(1, hits_BK.shape[1] + 1)
    precisions: Floats = hits_BK.cumsum(1) / ranks
    values: Floats = (precisions * hits_BK).sum(1) / np.minimum(relevant_B, hits_BK.shape[1])
    return values


def ndcg(hits_BK: Array, relevant_B: Array) -> Floats:
    """(sum over hits of 1 / log2(rank + 1)) / (the same sum over ranks 1..min(relevant, k))."""
    return _dcg(hits_BK) / _ideal(np.minimum(relevant_B, hits_BK.shape[1]))


def ndcg_full(hits_BK: Array, relevant_B: Array) -> Floats:
    """(sum over hits of 1 / log2(rank + 1)) / (the same sum over ranks 1..relevant, not cut at k)."""
    return _dcg(hits_BK) / _ideal(relevant_B)


def _dcg(hits_BK: Array) -> Floats:
    discounts: Floats = 1.0 / np.log2(np.arange(2, hits_BK.shape[1] + 2))
    gains: Floats = (hits_BK * discounts).sum(1)
    return gains


def _ideal(length_B: Array) -> Floats:
    sums = np.cumsum(1.0 / np.log2(np.arange(2, int(length_B.max(initial=1)) + 2)))
    ideals: Floats = sums[length_B - 1]
    return ideals


def auc(label_E: Array, score_E: Array) -> float:
    """P(score of a positive > score of a negative) + half P(equal), over all pairs of the two; NaN for one class."""
    group_E = np.zeros(len(label_E), dtype=np.int64)
    return float(group_auc(group_E, label_E, score_E, 1)[0])


def group_auc(group_E: Array, label_E: Array, score_E: Array, n_groups: int) -> Floats:
    """AUC within each group, shape (n_groups,); NaN for a group of one class or none."""
    order = np.lexsort((score_E, group_E))
    group_E, positive_E, score_E = group_E[order], np.asarray(label_E)[order] > 0.5, score_E[order]
    positives = np.bincount(group_E[positive_E], minlength=n_groups).astype(np.float64)
    sizes = np.bincount(group_E, minlength=n_groups)
    first = np.flatnonzero(_changes(group_E) | _changes(score_E))  # runs of equal scores within a group
    length = np.diff(first, append=len(group_E))
    start = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    rank_E = np.repeat(first + (length + 1) / 2, length) - start[group_E]  # 1-based, ties share the mean rank
    rank_sum = np.bincount(group_E[positive_E], weights=rank_E[positive_E], minlength=n_groups)
    negatives = sizes - positives
    with np.errstate(invalid="ignore", divide="ignore"):
        answer: Floats = (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)
    answer[(positives == 0) | (negatives == 0)] = np.nan
    return answer


def gauc(user_E: Array, label_E: Array, score_E: Array) -> float:
    """sum of impressions x AUC / sum of impressions, over users of both classes; NaN if there is none."""
    users, group_E = np.unique(user_E, return_inverse=True)
    per_user = group_auc(group_E, label_E, score_E, len(users))
    weight = np.where(np.isnan(per_user), 0.0, np.bincount(group_E, minlength=len(users)))
    return float((np.nan_to_num(per_user) * weight).sum() / weight.sum()) if weight.any() else float("nan")


def auc_pr(label_E: Array, score_E: Array) -> float:
    """sum over thresholds of (recall_n - recall_{n-1}) x precision_n (average precision); NaN without positives."""
    order = np.argsort(-np.asarray(score_E, dtype=np.float64), kind="stable")
    positive_E, score_E = np.asarray(label_E)[order] > 0.5, np.asarray(score_E)[order]
    if not positive_E.any():
        return float("nan")
    last = np.append(np.flatnonzero(_changes(score_E)[1:]), len(score_E) - 1)  # equal scores are one threshold
    hits = positive_E.cumsum()[last]
    return float((np.diff(hits, prepend=0) * hits / (last + 1)).sum() / positive_E.sum())


def losses(label_E: Array, probability_E: Array) -> Floats:
    """-(y log p + (1 - y) log(1 - p)) per pair, p clipped to [1e-7, 1 - 1e-7], shape (E,)."""
    p = np.clip(np.asarray(probability_E, dtype=np.float64), CLIP, 1 - CLIP)
    return np.where(np.asarray(label_E) > 0.5, -np.log(p), -np.log1p(-p))


def logloss(label_E: Array, probability_E: Array) -> float:
    """Mean over pairs of -(y log p + (1 - y) log(1 - p)), p clipped to [1e-7, 1 - 1e-7]."""
    return float(losses(label_E, probability_E).mean())


def calibration_error(label_E: Array, probability_E: Array) -> float:
    """sum over 10 bins of equal width of (pairs in bin / pairs) x |mean label - mean probability| (ECE)."""
    return _calibration_error(label_E, probability_E, bins_of_width(probability_E))


def calibration_error_mass(label_E: Array, probability_E: Array) -> float:
    """sum over 10 bins of equal size of (pairs in bin / pairs) x |mean label - mean probability| (adaptive ECE)."""
    return _calibration_error(label_E, probability_E, bins_of_mass(probability_E))


def _calibration_error(label_E: Array, probability_E: Array, bin_E: Array) -> float:
    gap_E = np.asarray(label_E, dtype=np.float64) - np.asarray(probability_E, dtype=np.float64)
    return float(np.abs(np.bincount(bin_E, weights=gap_E)).sum() / len(bin_E))


def bins_of_width(probability_E: Array, bins: int = 10) -> npt.NDArray[np.int64]:
    """The bin of each probability, shape (E,): bin b is (b / bins, (b + 1) / bins], the first one with its 0."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], np.asarray(probability_E, dtype=np.float64))


def bins_of_mass(probability_E: Array, bins: int = 10) -> npt.NDArray[np.int64]:
    """The bin of each probability, shape (E,), cut at the quantiles b / bins; equal ones share a bin."""
    p = np.asarray(probability_E, dtype=np.float64)
    return np.searchsorted(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1]), p)


def sigmoid(score_E: Array) -> Floats:
    """1 / (1 + exp(-score)), without overflow."""
    small = np.exp(-np.abs(score_E))
    return np.where(score_E >= 0, 1.0, small) / (1.0 + small)


def _changes(values: Array) -> npt.NDArray[np.bool_]:
    """Whether each value differs from the one before; the first does."""
    changed = np.ones(len(values), dtype=bool)
    changed[1:] = values[1:] != values[:-1]
    return changed


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's definition, as ``macrorec metrics`` shows it."""

    name: str
    """Canonical name, without its k."""
    protocols: tuple[Protocol, ...]
    """The protocols that can measure it."""
    function: Callable[..., Any]
    higher_is_better: bool = True
    note: str = ""
    """On which scores, where that is not the model's own."""

    @property
    def takes_k(self) -> bool:
        """Whether the name carries a cut: recall@20."""
        return self.protocols == ("ranking",)

    @property
    def formula(self) -> str:
        """The first line of the function's docstring: the definition with its normalisation."""
        return (self.function.__doc__ or "").partition("\n")[0] + self.note


PROBE = " Scores: logistic regression (C = 0.001) on {} of the pair's vectors, fitted to train pairs."

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric("recall", ("ranking",), recall),
            Metric("ndcg", ("ranking",), ndcg),
            Metric("ndcg_full", ("ranking",), ndcg_full),
            Metric("hr", ("ranking",), hr),
            Metric("map", ("ranking",), average_precision),
            Metric("mrr", ("ranking",), mrr),
            Metric("precision", ("ranking",), precision),
            Metric("auc", ("ctr",), auc),
            Metric("gauc", ("ctr",), gauc),
            Metric("logloss", ("ctr",), logloss, higher_is_better=False),
            Metric("calibration", ("ctr",), calibration_error, higher_is_better=False),
            Metric("calibration_mass", ("ctr",), calibration_error_mass, higher_is_better=False),
            Metric("auc_roc", ("links",), auc),
            Metric("auc_pr", ("links",), auc_pr),
            Metric("auc_roc_hadamard", ("links",), auc, note=PROBE.format("u * v")),
            Metric("auc_pr_hadamard", ("links",), auc_pr, note=PROBE.format("u * v")),
            Metric("auc_roc_concat", ("links",), auc, note=PROBE.format("[u; v]")),
            Metric("auc_pr_concat", ("links",), auc_pr, note=PROBE.format("[u; v]")),
        )
    }
)
"""All metrics by canonical name."""


COHORTS: Mapping[str, str] = MappingProxyType(
    {
        "re-engagement": "held-out items that the user has met in an auxiliary behaviour before",
        "discovery": "held-out items that the user has met in no auxiliary behaviour before",
    }
)
"""Cohorts of held-out items, and what they hold. "Before" is in earlier parts: train, at test train and valid."""


class MetricName(NamedTuple):
    """A name taken apart: ``ndcg_full@10:discovery`` is ``("ndcg_full", 10, "discovery")``."""

    metric: str
    """One of ``METRICS``."""
    cut: int | None
    """The k of a ranking metric."""
    cohort: str | None = None
    """One of ``COHORTS``; None: all held-out items."""


def parse(name: str) -> MetricName:
    """The parts of a name: ``"NDCG-full@10"`` is ``("ndcg_full", 10, None)``, ``"AUC"`` is ``("auc", None, None)``.

    Raises ConfigError on an unknown metric or cohort, a missing or superfluous cut, or a cut below 1.
    """
    whole, colon, cohort = name.strip().lower().partition(":")
    metric, at, cut = whole.replace("-", "_").partition("@")
    cohort = cohort.replace("_", "-")
    if metric not in METRICS:
        legal = ", ".join(m + "@k" * METRICS[m].takes_k for m in METRICS)
        raise ConfigError(f"unknown metric {name!r}; known are {legal}")
    if not METRICS[metric].takes_k:
        if at or colon:
            raise ConfigError(f"metric {name!r} takes no {'cut' if at else 'cohort'}; write {metric!r}")
        return MetricName(metric, None)
    if not re.fullmatch(r"[1-9][0-9]{0,8}", cut):
        raise ConfigError(f"metric {name!r} needs a cut of at least 1, as in '{metric}@20'")
    if colon and cohort not in COHORTS:
        raise ConfigError(f"metric {name!r} has an unknown cohort; known are {', '.join(COHORTS)}")
    return MetricName(metric, int(cut), cohort if colon else None)


def canonical(name: str) -> str:
    """The one spelling of a metric's name: ``"NDCG-full@10"`` becomes ``"ndcg_full@10"``."""
    metric, cut, cohort = parse(name)
    return metric + (f"@{cut}" if cut else "") + (f":{cohort}" if cohort else "")


def with_cohorts(names: Iterable[str], cohorts: Iterable[str] = COHORTS) -> tuple[str, ...]:
    """Canonical ``names``, each ranking metric of all held-out items followed by those of ``cohorts``; each once."""
    kinds = tuple(cohorts)
    answer: dict[str, None] = {}
    for name in names:
        _, cut, cohort = parse(name)
        answer[name] = None
        if cut and cohort is None:
            answer |= dict.fromkeys(f"{name}:{kind}" for kind in kinds)
    return tuple(answer)


def by_cohort(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Values by canonical name as rows of a table: ``{"hr@10": {"all": ..., "re-engagement": ..., ...}, ...}``."""
    rows: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        whole, _, cohort = name.partition(":")
        rows.setdefault(whole, {})[cohort or "all"] = value
    return rows
