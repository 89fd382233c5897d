"""How well does a model predict the label of an impression? Scores are logits; probabilities are their sigmoids."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from macrorec.api import Model
from macrorec.data.log import Interactions
from macrorec.errors import DataError
from macrorec.eval import metrics
from macrorec.eval.ranking import device_of, evaluating

PAIRS = 1 << 16
"""Pairs scored at once."""


def score_pairs(model: Model, user_E: npt.NDArray[Any], item_E: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Scores of pairs of numbers, shape (E,). Raises DataError on NaN."""
    device = device_of(model)
    parts = []
    with evaluating(model):
        for start in range(0, len(user_E), PAIRS):
            users_B, items_B = (
                torch.from_numpy(np.ascontiguousarray(column[start : start + PAIRS], dtype=np.int64)).to(device)
                for column in (user_E, item_E)
            )
            parts.append(model.score(users_B, items_B).double().cpu().numpy())
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


def measure_impressions(
    model: Model, pairs: Interactions, names: tuple[str, ...]
) -> tuple[dict[str, float], pl.DataFrame, dict[str, int]]:
    """Values of ``names``, the per-user frame (``user_id, impressions, gauc, logloss``), and counts."""
    label_E = labels_of(pairs)
    score_E = score_pairs(model, pairs.user, pairs.item)
    probability_E = sigmoid(score_E)
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


def sigmoid(score_E: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """1 / (1 + exp(-score)), without overflow."""
    small = np.exp(-np.abs(score_E))
    return np.where(score_E >= 0, 1.0, small) / (1.0 + small)


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
