"""Can a model tell edges from non-edges? Fixed, saved negatives; direct scores, and the field's logistic probe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from macrorec.api import Model, TwoTower
from macrorec.data.log import Interactions, Split
from macrorec.errors import ConfigError, DataError
from macrorec.eval import metrics
from macrorec.eval.ctr import by_user, counts_of, labels_of, score_pairs
from macrorec.eval.ranking import evaluating

PROBE_C = 0.001
"""Inverse regularisation of the logistic probe, as the field's link-prediction tables use it."""


def draw_negatives(
    split: Split, part: Literal["train", "valid", "test"], per_edge: int = 1, *, seed: int
) -> Interactions:
    """The target edges of ``part`` with label 1, and ``per_edge`` times as many uniform non-edges with label 0.

    A non-edge is a (user, item) pair of no target row of any part; none is drawn twice. The same split and seed give
    the same pairs, in the same order. Raises DataError if there are too few non-edges.
    """
    n_users, n_items = len(split.users), len(split.items)
    parts = [rows.take(rows.behavior == rows.target) for rows in (split.train, split.valid, split.test)]
    keys = [np.unique(rows.user.astype(np.int64) * n_items + rows.item) for rows in parts]
    place = ("train", "valid", "test").index(part)
    positive_E = keys[place]
    taken = np.unique(np.concatenate(keys))
    wanted = per_edge * len(positive_E)
    free = n_users * n_items - len(taken)
    if wanted > free:
        raise DataError(f"{wanted} negatives asked for, but only {free} pairs of user and item are not edges")
    generator = np.random.default_rng([seed, place])  # a probe must not be fitted to the negatives of its test
    if 2 * wanted > free:  # dense: enumerate the few non-edges
        every = np.setdiff1d(np.arange(n_users * n_items), taken, assume_unique=True)
        negative_E = generator.choice(every, wanted, replace=False)
    else:
        negative_E = np.zeros(0, dtype=np.int64)
        while len(negative_E) < wanted:
            drawn = np.append(
                negative_E, generator.integers(n_users * n_items, size=2 * (wanted - len(negative_E)) + 16)
            )
            _, first = np.unique(drawn, return_index=True)
            drawn = drawn[np.sort(first)]
            negative_E = drawn[~np.isin(drawn, taken)][:wanted]
    key = np.concatenate([positive_E, negative_E])
    rows = split.part(part)
    return replace(
        rows,
        user=(key // n_items).astype(np.int32),
        item=(key % n_items).astype(np.int32),
        behavior=np.full(len(key), rows.target, dtype=np.int8),
        time=None,
        weight=None,
        label=np.repeat(np.array([1, 0], dtype=np.float32), [len(positive_E), len(negative_E)]),
    )


def save_pairs(pairs: Interactions, path: Path) -> None:
    """Write labelled pairs as Parquet with the columns ``user_id, item_id, label``."""
    pairs.frame().select("user_id", "item_id", "label").write_parquet(path)


def load_pairs(path: Path, like: Interactions) -> Interactions:
    """Read labelled pairs written by ``save_pairs`` over the vocabularies of ``like``.

    Raises DataError on a missing column or an id outside the vocabularies.
    """
    try:
        frame = pl.read_parquet(path, columns=["user_id", "item_id", "label"])
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"cannot read labelled pairs (user_id, item_id, label) from {path}: {reason}") from error
    user, item = like.users.numbers(frame["user_id"]), like.items.numbers(frame["item_id"])
    for name, numbers in (("user_id", user), ("item_id", item)):
        if (numbers < 0).any():
            raise DataError(f"{path}: {name} {frame[name][int(np.argmin(numbers))]!r} is not in the vocabulary")
    return replace(
        like,
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        behavior=np.full(len(frame), like.target, dtype=np.int8),
        time=None,
        weight=None,
        label=frame["label"].to_numpy().astype(np.float32),
    )


def measure_pairs(
    model: Model, pairs: Interactions, names: tuple[str, ...], fit_pairs: Callable[[], Interactions]
) -> tuple[dict[str, float], pl.DataFrame, dict[str, int]]:
    """Values of ``names``, the per-user frame (``user_id, impressions, gauc``), and counts.

    ``fit_pairs()`` gives the labelled pairs that a probe is fitted to; called only if ``names`` holds one of a probe.
    """
    label_E = labels_of(pairs)
    score_E = {"": score_pairs(model, pairs.user, pairs.item)}
    for features in ("hadamard", "concat"):
        if any(name.endswith(features) for name in names):
            score_E[features] = probe(model, fit_pairs(), pairs, features)
    values = {}
    for name in names:
        features = next((known for known in score_E if known and name.endswith(known)), "")
        values[name] = metrics.METRICS[name].function(label_E, score_E[features])
    per_user = by_user(pairs, label_E, score_E[""])
    return values, per_user, counts_of(label_E, per_user)


def probe(
    model: Model, train: Interactions, test: Interactions, features: str, *, c: float = PROBE_C
) -> npt.NDArray[np.float64]:
    """Scores of ``test``, shape (E,), by a logistic regression on pair features, fitted to the labelled ``train``.

    ``hadamard``: u * v, shape (E, D); ``concat``: [u; v], shape (E, 2 D). ConfigError if the model has no vectors.
    """
    from sklearn.linear_model import LogisticRegression

    if features not in ("hadamard", "concat"):
        raise ConfigError(f"probe features are 'hadamard' or 'concat', got {features!r}")
    if not isinstance(model, TwoTower):
        raise ConfigError(f"{type(model).__name__} has no vectors to probe; measure auc_roc and auc_pr")
    label_E = labels_of(train)
    if label_E.min(initial=1) == label_E.max(initial=0):
        raise DataError("a probe needs train pairs of both labels, 0 and 1")
    with evaluating(model):
        users_UD, items_ID = (vectors.double().cpu().numpy() for vectors in model.encode())

    def features_of(pairs: Interactions) -> npt.NDArray[np.float64]:
        u_ED, v_ED = users_UD[pairs.user], items_ID[pairs.item]
        return u_ED * v_ED if features == "hadamard" else np.concatenate([u_ED, v_ED], axis=1)

    regression = LogisticRegression(C=c, max_iter=1000).fit(features_of(train), label_E)
    scores_E: npt.NDArray[np.float64] = regression.decision_function(features_of(test))
    return scores_E
