"""How well does a model predict the label of an impression? Scores are logits; probabilities are their sigmoids.

Shape letters: E labelled pairs, B impressions of one block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from macrorec.api import Model, Ranker
from macrorec.data.log import Interactions
from macrorec.errors import DataError
from macrorec.eval import metrics
from macrorec.eval.cohorts import HISTORY_COLUMNS, Counts
from macrorec.eval.ranking import device_of, evaluating
from macrorec.graph.features import Samples

PAIRS = 1 << 16
"""Pairs scored at once."""
IMPRESSIONS = 1 << 13
"""Impressions scored at once: a ranker that attends to 100 neighbours of 20 numbers each holds 64 MiB for them."""


@dataclass(frozen=True, slots=True, eq=False)
class Clicks:
    """What was measured on labelled impressions."""

    values: dict[str, float]
    per_user: pl.DataFrame
    """``user_id, impressions, gauc, logloss`` over the impressions that count."""
    counts: dict[str, int]
    samples: pl.DataFrame
    """All impressions: ``user_id, item_id, label, logit`` and, where known, ``user_history, item_history``."""


def score_pairs(model: Model, user_E: npt.NDArray[Any], item_E: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Scores of pairs of numbers, shape (E,). Raises DataError on NaN."""
    device = device_of(model)
    parts = []
    with evaluating(model):
        for rows in blocks(len(user_E), PAIRS):
            users_B, items_B = (
                torch.from_numpy(np.ascontiguousarray(column[rows], dtype=np.int64)).to(device)
                for column in (user_E, item_E)
            )
            parts.append(model.score(users_B, items_B).double().cpu().numpy())
    return joined(parts)


def score_samples(model: Ranker, samples: Samples) -> npt.NDArray[np.float64]:
    """Logits of impressions by their features, shape (E,), on the model's device. Raises DataError on NaN."""
    device = device_of(model)
    parts = []
    with evaluating(model):
        for rows in blocks(len(samples), IMPRESSIONS):
            features = samples.features.take(torch.arange(rows.start, rows.stop)).to(device)
            parts.append(model.logits(features).double().cpu().numpy())
    return joined(parts)


def blocks(n: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` that cover n rows."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def joined(parts: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """The scores of all blocks. Raises DataError on NaN."""
    scores = np.concatenate(parts) if parts else np.zeros(0)
    if np.isnan(scores).any():
        raise DataError(
            "the model's scores hold NaN; it diverged or its weights are damaged: retrain with a smaller lr"
        )
    return scores


def labels_of(pairs: Interactions) -> npt.NDArray[np.float32]:
    """The labels of ``pairs``. Raises DataError unless all are 0 or 1."""
    if pairs.label is None:
        raise DataError("the protocol needs a column 'label' of 0 and 1; the part has none")
    odd = ~np.isin(pairs.label, (0.0, 1.0))
    if odd.any():
        raise DataError(f"labels must be 0 or 1 to evaluate on, found {pairs.label[odd][0]:g}; binarise them first")
    return pairs.label


def impressions_of(pairs: Interactions) -> Interactions:
    """The rows of the target behaviour that carry a label. Raises DataError if there is no column of labels."""
    if pairs.label is None:
        raise DataError("the protocol needs a column 'label' of 0 and 1; the part has none")
    return pairs.take((pairs.behavior == pairs.target) & ~np.isnan(pairs.label))


def measure_impressions(
    model: Model,
    given: Samples | Interactions,
    names: tuple[str, ...],
    part: str,
    *,
    histories: tuple[Counts, Counts] | None = None,
    count: Literal["all", "warm"] = "all",
) -> Clicks:
    """Measure ``names`` on labelled impressions: a ranker by their features, any other model by its scores of pairs.

    ``histories`` are the lengths of the users' and the items' history, where ``given`` does not have them. With
    ``count="warm"`` impressions without history of user or item count for nothing but ``samples``. Raises DataError
    where no impression counts, and where those of ``part`` cannot tell an AUC that is asked for.
    """
    pairs = given.pairs if isinstance(given, Samples) else given
    if isinstance(given, Samples):
        histories = given.user_history_B, given.item_history_B
    label_E = labels_of(pairs)
    counts_E = np.ones(len(label_E), dtype=bool)
    if count == "warm":
        assert histories is not None, "warm is who has history"
        counts_E = (histories[0] > 0) & (histories[1] > 0)
        if not counts_E.any():
            raise DataError(
                f"no impression of the part {part!r} is warm: in none have both user and item positive history"
            )
    check_classes(label_E[counts_E], pairs.user[counts_E], names, part)
    if isinstance(model, Ranker) and isinstance(given, Samples):
        score_E = score_samples(model, given)
    else:
        score_E = score_pairs(model, pairs.user, pairs.item)

    columns = {
        "user_id": pairs.users.ids_of(pairs.user),
        "item_id": pairs.items.ids_of(pairs.item),
        "label": pl.Series(label_E),
        "logit": pl.Series(score_E),
        **{name: pl.Series(values) for name, values in zip(HISTORY_COLUMNS, histories or (), strict=False)},
    }
    values, per_user, counts = summed(pairs.take(counts_E), score_E[counts_E], names)
    if count == "warm":
        counts["cold_pairs_left_out"] = int((~counts_E).sum())
    return Clicks(values, per_user, counts, pl.DataFrame(columns))


def check_classes(label_E: npt.NDArray[Any], user_E: npt.NDArray[Any], names: tuple[str, ...], part: str) -> None:
    """Raise DataError if ``names`` ask for an AUC of one class, or for one per user where no user has both."""
    asked = [name for name in names if name in ("auc", "gauc")]
    if asked and label_E.min() == label_E.max():
        raise DataError(
            f"{asked[0]} needs impressions of both labels, and all {len(label_E):,} of the part {part!r} have label "
            f"{label_E[0]:g}; measure logloss, or choose another split"
        )
    if "gauc" in names and np.isnan(metrics.gauc(user_E, label_E, np.zeros(len(label_E)))):
        raise DataError(f"gauc needs a user with impressions of both labels; the part {part!r} has none: measure auc")


def summed(
    pairs: Interactions, score_E: npt.NDArray[np.float64], names: tuple[str, ...]
) -> tuple[dict[str, float], pl.DataFrame, dict[str, int]]:
    """Values of ``names``, the per-user frame (``user_id, impressions, gauc, logloss``), and counts."""
    label_E, probability_E = labels_of(pairs), metrics.sigmoid(score_E)
    values: dict[str, float] = {}
    for name in names:
        if name == "gauc":
            values[name] = metrics.gauc(pairs.user, label_E, score_E)
        else:
            uses = score_E if name == "auc" else probability_E
            values[name] = metrics.METRICS[name].function(label_E, uses)
    per_user = by_user(pairs, label_E, score_E).with_columns(
        logloss=mean_by_user(pairs.user, metrics.losses(label_E, probability_E))
    )
    return values, per_user, counts_of(label_E, per_user)


def by_user(pairs: Interactions, label_E: npt.NDArray[Any], score_E: npt.NDArray[Any]) -> pl.DataFrame:
    """``user_id, impressions, gauc``: a user's pairs and AUC, null for a user of one class. Ascending user number."""
    users, group_E = np.unique(pairs.user, return_inverse=True)
    auc = pl.Series(metrics.group_auc(group_E, label_E, score_E, len(users)), nan_to_null=True)
    impressions = np.bincount(group_E, minlength=len(users))
    return pl.DataFrame({"user_id": pairs.users.ids_of(users), "impressions": impressions, "gauc": auc})


def mean_by_user(user_E: npt.NDArray[Any], value_E: npt.NDArray[np.float64]) -> pl.Series:
    """Mean of ``value_E`` per distinct user, ascending user number."""
    _, group_E = np.unique(user_E, return_inverse=True)
    return pl.Series(np.bincount(group_E, weights=value_E) / np.bincount(group_E))


def counts_of(label_E: npt.NDArray[Any], per_user: pl.DataFrame) -> dict[str, int]:
    """Pairs, positives, users, and users of one class, whom GAUC leaves out."""
    return {
        "pairs": len(label_E),
        "positives": int((label_E > 0.5).sum()),
        "users": len(per_user),
        "users_of_one_class": int(per_user["gauc"].null_count()),
    }
