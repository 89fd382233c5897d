"""Can a model tell edges from non-edges? Fixed, saved negatives; direct scores, and the field's logistic probe.

Pairs of label 0 are no edges: they stand in a given test or valid part, or are drawn here, and no graph, mask or train
part ever holds one. Shape letters: E pairs, U users, I items, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from macrorec.api import Model, TwoTower
from macrorec.data.log import Interactions, PartName, Split
from macrorec.errors import ConfigError, DataError
from macrorec.eval import metrics
from macrorec.eval.ctr import PAIRS, blocks, by_user, counts_of, joined, labels_of, score_pairs
from macrorec.eval.ranking import EvalConfig, evaluating

PROBE_C = 0.001
"""Inverse regularisation of the logistic probe, as the field's link-prediction tables use it."""
PROBE_EDGES = 50_000
"""Edges of train that a probe is fitted to at most, where its pairs are not given."""
PROBES = ("hadamard", "concat")
"""Features of a pair that a probe sees: u * v, or [u; v]."""
ORDER: tuple[PartName, ...] = ("train", "valid", "test")
"""The place of a part seeds its draw: a probe must not be fitted to the negatives of its test."""
MEASURED: tuple[PartName, ...] = ("test", "valid")
"""Parts that have pairs of their own, in the order in which they are drawn: test's depend on nothing but the log."""


@dataclass(frozen=True, slots=True, eq=False)
class LinkPairs:
    """Labelled pairs over the vocabularies of a split: the same for every model, and for every seed of a run."""

    probe: Interactions
    """What a probe is fitted to: edges of train, and non-edges."""
    valid: Interactions
    test: Interactions
    drawn: Mapping[PartName, str]
    """How the non-edges of a part were drawn, in words; of parts that came with labels, nothing."""

    def part(self, name: PartName) -> Interactions:
        """The pairs of a part; those of train are the probe's."""
        return {"train": self.probe, "valid": self.valid, "test": self.test}[name]

    def digests(self) -> dict[str, str]:
        """SHA-256 of the pairs of valid and test."""
        return {name: self.part(name).digest() for name in MEASURED if len(self.part(name))}


def link_pairs(split: Split, config: EvalConfig, probe: Interactions | None = None) -> LinkPairs:
    """What ``split`` is measured on, and what a probe is fitted to: ``probe``, or as many edges and non-edges of train.

    A part with labels of 0 and 1 is measured as it is; to a part of edges alone, ``config.negatives`` non-edges per
    edge are drawn. Non-edges are pairs of no part, and those of test, valid and probe have no pair in common. Of a
    ``probe`` that was given, pairs that are measured are left out. Raises DataError for a train part with rows of
    label 0, which would be taken for edges, and for pairs of label 0 that are edges of train.
    """
    refuse_non_edges(split.train)
    given = [] if probe is None else [probe]
    drawn: dict[PartName, str] = {}
    made: dict[PartName, Interactions] = {}
    for name in MEASURED:
        part = split.part(name)
        if has_labels(part) or not len(part):
            made[name] = part
        else:
            avoid = [*made.values(), *given]
            made[name] = draw_negatives(split, name, config.negatives, seed=config.negative_seed, avoid=avoid)
            drawn[name] = f"{config.negatives} non-edges per edge drawn with seed {config.negative_seed}"
    measured = list(made.values())
    if probe is None:
        fitted = draw_negatives(split, "train", seed=config.negative_seed, avoid=measured, at_most=PROBE_EDGES)
    else:
        fitted = probe.take(~np.isin(keys_of(probe), np.concatenate([keys_of(pairs) for pairs in measured])))
    for where, pairs in (("probe", fitted), *made.items()):
        _refuse_edges(pairs, split.train, where)
    return LinkPairs(fitted, made["valid"], made["test"], drawn)


def draw_negatives(
    split: Split,
    part: PartName,
    per_edge: int = 1,
    *,
    seed: int,
    avoid: Sequence[Interactions] = (),
    at_most: int | None = None,
) -> Interactions:
    """The target edges of ``part`` with label 1, and ``per_edge`` times as many uniform non-edges with label 0.

    A non-edge is a (user, item) pair of no target row of any part, nor of ``avoid``; none is drawn twice. The same
    split and seed give the same pairs, in the same order. With ``at_most`` so many edges are drawn, too, or as many as
    there are non-edges for; else too few non-edges raise DataError.
    """
    n_users, n_items = len(split.users), len(split.items)
    parts = [rows.take(rows.behavior == rows.target) for rows in (split.train, split.valid, split.test)]
    place = ORDER.index(part)
    positive_E = np.unique(keys_of(parts[place]))
    taken = np.unique(np.concatenate([keys_of(rows) for rows in (*parts, *avoid)]))
    free = n_users * n_items - len(taken)
    generator = np.random.default_rng([seed, place])
    if at_most is not None:
        most = min(at_most, free // per_edge)
        if len(positive_E) > most:
            positive_E = np.sort(generator.choice(positive_E, most, replace=False))
    wanted = per_edge * len(positive_E)
    if wanted > free:
        raise DataError(f"{wanted} negatives asked for, but only {free} pairs of user and item are not edges")
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
    label = np.repeat(np.array([1, 0], dtype=np.float32), [len(positive_E), len(negative_E)])
    return _pairs(split.part(part), key // max(n_items, 1), key % max(n_items, 1), label)


def has_labels(part: Interactions) -> bool:
    """Whether ``part`` holds non-edges: rows of label 0. Raises DataError for labels that are neither 0 nor 1."""
    return part.label is not None and bool((labels_of(part) == 0).any())


def refuse_non_edges(train: Interactions) -> None:
    """Raise DataError if ``train`` has rows of label 0: a graph of it would take them for edges."""
    wrong = 0 if train.label is None else int((train.label == 0).sum())
    if wrong:
        raise DataError(
            f"train has {wrong:,} rows of label 0, which would be taken for edges: leave them out of the log, and give "
            "them to a probe as source.probe"
        )


def _refuse_edges(pairs: Interactions, train: Interactions, name: str) -> None:
    if pairs.label is None:
        return
    wrong = int(np.isin(keys_of(pairs.take(pairs.label == 0)), keys_of(train.of("target"))).sum())
    if wrong:
        raise DataError(f"{wrong:,} pairs of label 0 in {name} are edges of train: nothing could be right about them")


def keys_of(pairs: Interactions) -> npt.NDArray[np.int64]:
    """``user * n_items + item`` of every row, shape (E,)."""
    return pairs.user.astype(np.int64) * len(pairs.items) + pairs.item


def _pairs(like: Interactions, user: npt.NDArray[np.int64], item: npt.NDArray[np.int64], label: object) -> Interactions:
    """Labelled target pairs over the vocabularies of ``like``."""
    return replace(
        like,
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        behavior=np.full(len(user), like.target, dtype=np.int8),
        time=None,
        weight=None,
        label=np.asarray(label, dtype=np.float32),
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
    return pairs_over(frame, like, str(path))


def pairs_over(frame: pl.DataFrame, like: Interactions, where: str) -> Interactions:
    """The rows ``user_id, item_id, label`` of ``frame``, which lie at ``where``, over the vocabularies of ``like``.

    Raises DataError on an id outside the vocabularies, and on labels that are neither 0 nor 1.
    """
    user, item = like.users.numbers(frame["user_id"]), like.items.numbers(frame["item_id"])
    for name, numbers in (("user_id", user), ("item_id", item)):
        if (numbers < 0).any():
            raise DataError(f"{where}: {name} {frame[name][int(np.argmin(numbers))]!r} is not in the vocabulary")
    pairs = _pairs(like, user, item, frame["label"].to_numpy())
    labels_of(pairs)
    return pairs


# --- measuring -------------------------------------------------------------------------------------------------------


def measure_pairs(
    model: Model, pairs: Interactions, names: tuple[str, ...], fitted: Interactions
) -> tuple[dict[str, float], pl.DataFrame, dict[str, int]]:
    """Values of ``names``, the per-user frame (``user_id, impressions, gauc``), and counts.

    ``fitted`` are the labelled pairs that a probe is fitted to. Raises DataError for pairs of one label, and for NaN.
    """
    label_E = labels_of(pairs)
    if label_E.min() == label_E.max():
        raise DataError(f"all {len(label_E):,} pairs have label {label_E[0]:g}: edges and non-edges are needed")
    if isinstance(model, TwoTower):
        with evaluating(model):
            score_E = {"": _products(*model.encode(), pairs)}
    else:
        score_E = {"": score_pairs(model, pairs.user, pairs.item)}
    for features in probes_in(names):
        score_E[features] = probe(model, fitted, pairs, features)
    values = {}
    for name in names:
        features = next((known for known in score_E if known and name.endswith(known)), "")
        values[name] = metrics.METRICS[name].function(label_E, score_E[features])
    per_user = by_user(pairs, label_E, score_E[""])
    return values, per_user, counts_of(label_E, per_user)


def _products(users_UD: Tensor, items_ID: Tensor, pairs: Interactions) -> npt.NDArray[np.float64]:
    """Inner products (E,) of vectors that were made once. Raises DataError on NaN."""
    parts = []
    for rows in blocks(len(pairs), PAIRS):
        u_B, v_B = (torch.from_numpy(column[rows].astype(np.int64)) for column in (pairs.user, pairs.item))
        products_B = (users_UD[u_B.to(users_UD.device)] * items_ID[v_B.to(items_ID.device)]).sum(-1)
        parts.append(products_B.double().cpu().numpy())
    return joined(parts)


def probes_in(names: Sequence[str]) -> list[str]:
    """The features of pairs that metrics ask a probe for."""
    return [features for features in PROBES if any(name.endswith(features) for name in names)]


def require_vectors(model: Model, names: Sequence[str]) -> None:
    """Raise ConfigError if ``names`` hold a metric of a probe, and ``model`` has no vectors to probe."""
    if probes_in(names) and not isinstance(model, TwoTower):
        raise ConfigError(f"{type(model).__name__} has no vectors to probe; measure auc_roc and auc_pr")


def probe(
    model: Model, train: Interactions, test: Interactions, features: str, *, c: float = PROBE_C
) -> npt.NDArray[np.float64]:
    """Scores of ``test``, shape (E,), by a logistic regression on pair features, fitted to the labelled ``train``.

    ``hadamard``: u * v, shape (E, D); ``concat``: [u; v], shape (E, 2 D). ConfigError if the model has no vectors.
    """
    from sklearn.linear_model import LogisticRegression

    if features not in PROBES:
        raise ConfigError(f"probe features are 'hadamard' or 'concat', got {features!r}")
    require_vectors(model, [features])
    assert isinstance(model, TwoTower)
    label_E = labels_of(train)
    if label_E.min(initial=1) == label_E.max(initial=0):
        raise DataError("a probe needs train pairs of both labels, 0 and 1")
    with evaluating(model):
        users_UD, items_ID = (vectors.double().cpu().numpy() for vectors in model.encode())

    def features_of(user: npt.NDArray[np.int32], item: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        u_ED, v_ED = users_UD[user], items_ID[item]
        return u_ED * v_ED if features == "hadamard" else np.concatenate([u_ED, v_ED], axis=1)

    # Vectors may be as small as 1e-4, and so the gradients: the usual tolerance would stop at weights of zero.
    regression = LogisticRegression(C=c, max_iter=1000, tol=1e-9).fit(features_of(train.user, train.item), label_E)
    parts = [
        regression.decision_function(features_of(test.user[rows], test.item[rows])) for rows in blocks(len(test), PAIRS)
    ]
    scores_E: npt.NDArray[np.float64] = np.concatenate(parts)
    return scores_E
